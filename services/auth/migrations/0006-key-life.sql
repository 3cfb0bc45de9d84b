-- The life of keys: when each of them did what. A key that verifies nothing any more keeps no private half.
ALTER TABLE signing_keys
  -- Not before the commit that published the key: whoever reads the keys from then on is told of it.
  ADD COLUMN publish_time timestamptz,
  ADD COLUMN sign_time    timestamptz,
  ADD COLUMN stop_time    timestamptz,
  ADD COLUMN retire_time  timestamptz,
  ALTER COLUMN sealed_private_key DROP NOT NULL;

UPDATE signing_keys SET
  publish_time = create_time,
  sign_time = CASE WHEN state = 'signing' THEN state_time END,
  stop_time = CASE WHEN state = 'verify-only' THEN state_time END,
  retire_time = CASE WHEN state = 'retired' THEN state_time END,
  sealed_private_key = CASE WHEN state <> 'retired' THEN sealed_private_key END;

ALTER TABLE signing_keys
  DROP COLUMN state_time,
  -- Without its private half nobody can tell whether the public one was replaced.
  ADD CHECK (state = 'retired' OR sealed_private_key IS NOT NULL),
  -- What is published as it stands must not hold a private member of any kind of key (RFC 7518).
  ADD CHECK (NOT public_jwk::jsonb ?| ARRAY['d', 'p', 'q', 'dp', 'dq', 'qi', 'oth', 'k']);

CREATE INDEX signing_keys_create_time ON signing_keys (create_time DESC, kid DESC);
