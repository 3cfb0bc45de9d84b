-- Fences: rows in the databases of services that reject the work of instances which lag behind the log.

ALTER TABLE log_state
  -- A later epoch has a larger number, also after a restore: it is taken from the clock.
  ADD COLUMN epoch_number bigint NOT NULL DEFAULT 1 CHECK (epoch_number > 0),
  -- Services should raise their fences to this sequence of the epoch.
  ADD COLUMN fence_wanted bigint NOT NULL DEFAULT 0 CHECK (fence_wanted >= 0);
UPDATE log_state SET epoch_number = (extract(epoch FROM clock_timestamp()) * 1000000)::bigint;

-- The fences as services have reported them. A position only rises, so the latest report counts, whichever replica got it.
CREATE TABLE fences (
  -- The client id of the service that reported it.
  service      text NOT NULL,
  database     text NOT NULL,
  fence_id     bytea NOT NULL CHECK (octet_length(fence_id) = 16),
  epoch_number bigint NOT NULL,
  sequence     bigint NOT NULL,
  report_time  timestamptz NOT NULL,
  PRIMARY KEY (service, database, fence_id)
);
