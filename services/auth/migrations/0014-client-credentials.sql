-- A client has several keys and secrets, so that they can be replaced without a refused call, and can be deleted.
ALTER TABLE clients
  -- Objects with credentialId, kind (public-key or secret), createTime, and pem or hash. In the row itself, because what
  -- locks the row must see the credentials that belong to its generation.
  ADD COLUMN credentials jsonb NOT NULL DEFAULT '[]'
    CHECK (jsonb_typeof(credentials) = 'array' AND jsonb_array_length(credentials) <= 16),
  -- A deleted client keeps its id and its generation: a later client of the same id must not revive its tokens.
  ADD COLUMN delete_time timestamptz;

-- Instances of the previous version read and write the previous columns, which mirror one credential until all are replaced.
UPDATE clients SET credentials = jsonb_build_array(jsonb_strip_nulls(jsonb_build_object(
    'credentialId', gen_random_uuid(),
    'kind', CASE WHEN public_key_pem IS NULL THEN 'secret' ELSE 'public-key' END,
    'createTime', to_char(create_time AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"'),
    'pem', public_key_pem, 'hash', secret_hash)))
WHERE public_key_pem IS NOT NULL OR secret_hash IS NOT NULL;
