-- The secrets that were derived from the key-encryption key. They are stored, encrypted, so that they stay the same when
-- another key-encryption key takes its place.
CREATE TABLE stored_secrets (
  purpose       text PRIMARY KEY CHECK (char_length(purpose) BETWEEN 1 AND 64),
  -- Nonce, tag and ciphertext of AES-256-GCM.
  sealed_secret bytea NOT NULL
);
