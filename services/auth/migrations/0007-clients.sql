-- Clients can be disabled, and be kept from passing on all that a user's token has.
ALTER TABLE clients
  ADD COLUMN disable_time    timestamptz,
  -- The scopes that it may have in tokens with which it acts for users; NULL for those that the user's token has.
  ADD COLUMN exchange_scopes text[],
  -- The subject of a client's token is its id: with that of a user it would pass for the user.
  ADD CHECK (client_id !~ '^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$');
