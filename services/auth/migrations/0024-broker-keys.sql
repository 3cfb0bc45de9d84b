-- The public nkey with which a client's service connects to the broker. Auth only keeps it, for those who configure the
-- broker.
ALTER TABLE clients
  ADD COLUMN broker_key text CHECK (broker_key ~ '^U[A-Z2-7]{55}$');
