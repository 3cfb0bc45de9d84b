-- When a revocation was written, for people. Entries of earlier versions have none.
ALTER TABLE revocation_entries ADD COLUMN revoke_time timestamptz;
ALTER TABLE revocation_entries ALTER COLUMN revoke_time SET DEFAULT clock_timestamp();
