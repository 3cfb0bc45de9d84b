-- How long access tokens live, as far as the revocation log is concerned: an entry about tokens of this issuer is kept
-- until all of them have expired. Minting reads the lifetime here, so no token outlives what the log assumes.

ALTER TABLE log_state
  -- The lifetime of tokens that are minted now. Auth sets it when it starts; until then tokens live as shortly as possible.
  ADD token_seconds       integer NOT NULL DEFAULT 10 CHECK (token_seconds > 0),
  -- A greater lifetime that was in force until now; transactions under way may still mint tokens of it.
  ADD older_token_seconds integer CHECK (older_token_seconds > token_seconds),
  -- When the last token of a greater lifetime expires.
  ADD older_tokens_end_by timestamptz NOT NULL DEFAULT to_timestamp(0);

-- Tokens that were minted before this migration live for an hour at most.
UPDATE log_state SET older_tokens_end_by = clock_timestamp() + interval '1 hour'
WHERE EXISTS (SELECT FROM signing_keys);
