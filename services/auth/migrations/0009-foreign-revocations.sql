-- Asked of the log when the token of another issuer, or what was exchanged for one, is exchanged.
CREATE INDEX revocation_entries_foreign ON revocation_entries (issuer, key) WHERE issuer <> '';
