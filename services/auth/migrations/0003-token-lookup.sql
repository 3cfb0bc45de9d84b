-- Asks of the log: has this very token, or one that it was derived from, been taken back?
CREATE INDEX revocation_entries_tokens ON revocation_entries (key) WHERE kind = 'TOKEN';
