-- What another issuer has issued can be taken back; instances are known to all replicas; an epoch can be opened.

-- The other issuer (`iss`) whose token, session or user an entry names; empty for our own. Its identifiers are
-- texts of any length.
ALTER TABLE revocation_entries
  ADD COLUMN issuer text NOT NULL DEFAULT '',
  -- Of a user of another issuer: what was issued up to here is revoked. Its generations are not ours to count.
  ADD COLUMN cut_off_time timestamptz,
  DROP CONSTRAINT revocation_entries_check,
  ADD CHECK (issuer <> '' OR kind NOT IN ('TOKEN', 'SESSION') OR octet_length(key) = 16),
  ADD CHECK (issuer = '' OR kind IN ('TOKEN', 'SESSION', 'USER')),
  ADD CHECK ((cut_off_time IS NOT NULL) = (issuer <> '' AND kind = 'USER'));

-- Two indexes on the same: one is enough.
DROP INDEX revocation_entries_tokens;

ALTER TABLE sessions DROP CONSTRAINT sessions_end_reason_check;
ALTER TABLE sessions ADD CHECK
  (end_reason IN ('LOGOUT', 'REVOKED', 'REFRESH_REUSED', 'USER_REVOKED', 'EPOCH_ENDED'));

-- The epochs that operators have opened, and why.
CREATE TABLE epochs (
  epoch     bytea PRIMARY KEY CHECK (octet_length(epoch) = 16),
  open_time timestamptz NOT NULL,
  reason    text NOT NULL,
  actor     text NOT NULL
);

-- What each replica of auth has heard of the instances. It is written once in a while, and nothing but receipts
-- and reports depend on it, so it need not survive a crash: the instances ask again within the second.
CREATE UNLOGGED TABLE instances (
  replica        bytea NOT NULL CHECK (octet_length(replica) = 16),
  instance       bytea NOT NULL CHECK (octet_length(instance) = 16),
  service        text NOT NULL,
  epoch          bytea NOT NULL,
  applied        bigint NOT NULL,
  -- The entries that its last question acknowledged, 16 bytes each.
  seen           bytea NOT NULL,
  sync_time      timestamptz NOT NULL,
  -- When the last lease that this replica has granted to it is over.
  lease_end_time timestamptz NOT NULL,
  PRIMARY KEY (replica, instance)
) WITH (fillfactor = 50);
