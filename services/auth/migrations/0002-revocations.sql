-- The revocation log: what has been taken back, in the order of commits, and until when it must be remembered.

-- One row: the log's end. Whoever writes to the log holds its lock until the commit, so sequences have no gaps
-- and are in the order of commits; a SEQUENCE promises neither.
CREATE TABLE log_state (
  one                 boolean PRIMARY KEY DEFAULT true CHECK (one),
  -- Which log this is; a new one is opened when the old one can no longer be trusted.
  epoch               bytea NOT NULL CHECK (octet_length(epoch) = 16),
  seq                 bigint NOT NULL DEFAULT 0 CHECK (seq >= 0),
  -- The id of the entry at seq, kept here because the entry itself is dropped one day.
  entry_id            bytea NOT NULL DEFAULT ''
                      CHECK (octet_length(entry_id) = CASE WHEN seq = 0 THEN 0 ELSE 16 END),
  -- The largest keep_until among the entries dropped so far.
  horizon             timestamptz NOT NULL DEFAULT to_timestamp(0),
  lease_ms            integer NOT NULL DEFAULT 5000 CHECK (lease_ms > 0),
  -- A greater length that was in force until now; leases of that length may still be granted by reads under way.
  older_lease_ms      integer CHECK (older_lease_ms > lease_ms),
  -- When the last lease of a greater length is over.
  older_leases_end_by timestamptz NOT NULL DEFAULT to_timestamp(0)
);

INSERT INTO log_state (epoch)
VALUES (substring(sha256(uuid_send(gen_random_uuid()) || uuid_send(gen_random_uuid())) FOR 16));

CREATE TABLE revocation_entries (
  epoch          bytea NOT NULL CHECK (octet_length(epoch) = 16),
  seq            bigint NOT NULL CHECK (seq > 0),
  entry_id       bytea NOT NULL UNIQUE CHECK (octet_length(entry_id) = 16),
  kind           text NOT NULL CHECK (kind IN ('TOKEN', 'SESSION', 'USER', 'CLIENT', 'KEY')),
  -- 16 bytes of a jti or sid, or the UTF-8 text of a sub, client_id or kid.
  key            bytea NOT NULL CHECK (kind NOT IN ('TOKEN', 'SESSION') OR octet_length(key) = 16),
  min_generation bigint NOT NULL CHECK (min_generation >= 0),
  keep_until     timestamptz NOT NULL,
  reason         text NOT NULL,
  actor          text NOT NULL,
  PRIMARY KEY (epoch, seq)
);
CREATE INDEX revocation_entries_keep_until ON revocation_entries (keep_until);
-- Whether single tokens were revoked is asked of the log itself when a token is exchanged.
CREATE INDEX revocation_entries_token ON revocation_entries (key) WHERE kind = 'TOKEN';

-- The log only grows: nothing is ever taken back from it by hand or by a bug, and no entry leaves early.
CREATE FUNCTION refuse_change_of_revocation_entries() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF TG_OP = 'DELETE' AND OLD.keep_until < clock_timestamp() THEN
    RETURN OLD;
  END IF;
  RAISE EXCEPTION 'an entry of the revocation log is neither changed nor dropped before its time';
END
$$;
CREATE TRIGGER revocation_entries_only_grow BEFORE UPDATE OR DELETE ON revocation_entries
  FOR EACH ROW EXECUTE FUNCTION refuse_change_of_revocation_entries();
CREATE TRIGGER revocation_entries_not_truncated BEFORE TRUNCATE ON revocation_entries
  FOR EACH STATEMENT EXECUTE FUNCTION refuse_change_of_revocation_entries();

-- Every answer to an instance commits a write to this table, which neither a standby nor a primary that has been
-- deposed can do. Each reader has a row of its own, so that none waits for another.
CREATE TABLE log_readers (
  reader    bytea PRIMARY KEY CHECK (octet_length(reader) = 16),
  read_time timestamptz NOT NULL
);
