-- Evidence: from where a revocation came, what an instance says of itself, and the receipts of revocations for as long as
-- security events are kept.

ALTER TABLE sessions ADD COLUMN network text NOT NULL DEFAULT '';

ALTER TABLE revocation_entries
  ADD COLUMN network    text NOT NULL DEFAULT '',
  ADD COLUMN request_id text NOT NULL DEFAULT '';

ALTER TABLE instances
  ADD COLUMN description jsonb,
  ADD COLUMN leaving     boolean NOT NULL DEFAULT false;

ALTER TABLE signing_keys
  DROP CONSTRAINT signing_keys_purpose_check,
  ADD CONSTRAINT signing_keys_purpose_check CHECK (purpose IN ('token', 'broadcast', 'receipt'));

-- One row: the receipts of this epoch are closed up to this sequence. Null before the first round.
CREATE TABLE receipt_state (
  only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
  epoch    bytea,
  seq      bigint NOT NULL DEFAULT 0
);
INSERT INTO receipt_state DEFAULT VALUES;

-- What is known of the instances for all revocations of one round: an instance applies entries in order, so a few
-- positions state for many entries since when it had them.
CREATE TABLE receipt_rounds (
  round_id   bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  close_time timestamptz NOT NULL,
  instances  jsonb NOT NULL,
  keep_until timestamptz NOT NULL
);
CREATE INDEX receipt_rounds_keep_until ON receipt_rounds (keep_until);

CREATE TABLE receipts (
  epoch       bytea NOT NULL CHECK (octet_length(epoch) = 16),
  seq         bigint NOT NULL,
  round_id    bigint NOT NULL REFERENCES receipt_rounds ON DELETE CASCADE,
  revoke_time timestamptz NOT NULL,
  -- The revocation, the names of the user and of the caller, and the bound.
  revocation  jsonb NOT NULL,
  PRIMARY KEY (epoch, seq)
);
CREATE INDEX receipts_round ON receipts (round_id);
CREATE INDEX receipts_revoke_time ON receipts (revoke_time, seq);
