-- Canary tokens: auth issues and revokes one in regular intervals, and measures how long the instances take. Their entries
-- are in the log like any other, and left out of lists and receipts.

ALTER TABLE revocation_entries ADD COLUMN canary boolean NOT NULL DEFAULT false;

-- One row: when a replica last began a measurement. The replicas take turns.
CREATE TABLE canary_state (
  only_row   boolean PRIMARY KEY DEFAULT true CHECK (only_row),
  begin_time timestamptz NOT NULL DEFAULT '-infinity'
);
INSERT INTO canary_state DEFAULT VALUES;
