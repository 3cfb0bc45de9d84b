-- The record of security events: append-only, in one order that every replica sees alike.

-- One row: the end of the order, and how far the rules for anomalies have judged it. Whoever gives positions or
-- judges holds its lock. A position is given after the commit of its event, so none appears before a lower one.
CREATE TABLE security_stream (
  one      boolean PRIMARY KEY DEFAULT true CHECK (one),
  position bigint NOT NULL DEFAULT 0 CHECK (position >= 0),
  judged   bigint NOT NULL DEFAULT 0 CHECK (judged >= 0 AND judged <= position)
);
INSERT INTO security_stream DEFAULT VALUES;

CREATE TABLE security_events (
  -- Of a report that a service has sent, the id that it gave: a report that comes twice is one.
  event_id   uuid PRIMARY KEY,
  position   bigint UNIQUE CHECK (position > 0),
  type       text NOT NULL CHECK (char_length(type) BETWEEN 1 AND 64),
  event_time timestamptz NOT NULL,
  subject    jsonb NOT NULL,
  -- Every identifier in the subject, to be found by.
  subjects   text[] NOT NULL,
  actor      text NOT NULL,
  reason     text NOT NULL,
  network    text NOT NULL,
  source     text NOT NULL,
  details    jsonb NOT NULL,
  keep_until timestamptz NOT NULL
);
CREATE INDEX security_events_unplaced ON security_events (event_time, event_id) WHERE position IS NULL;
CREATE INDEX security_events_type ON security_events (type, position);
CREATE INDEX security_events_subjects ON security_events USING gin (subjects);
CREATE INDEX security_events_event_time ON security_events (event_time);
CREATE INDEX security_events_keep_until ON security_events (keep_until);

-- The record only grows: but for the position that it gets, no event is ever changed, and none leaves early.
CREATE FUNCTION refuse_change_of_security_events() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF TG_OP = 'DELETE' AND OLD.keep_until < clock_timestamp() THEN
    RETURN OLD;
  END IF;
  IF TG_OP = 'UPDATE' AND OLD.position IS NULL AND NEW.position IS NOT NULL THEN
    OLD.position := NEW.position;
    IF OLD IS NOT DISTINCT FROM NEW THEN
      RETURN NEW;
    END IF;
  END IF;
  RAISE EXCEPTION 'a security event is neither changed nor dropped before its time';
END
$$;
CREATE TRIGGER security_events_only_grow BEFORE UPDATE OR DELETE ON security_events
  FOR EACH ROW EXECUTE FUNCTION refuse_change_of_security_events();
CREATE TRIGGER security_events_not_truncated BEFORE TRUNCATE ON security_events
  FOR EACH STATEMENT EXECUTE FUNCTION refuse_change_of_security_events();

-- Writes one event, and answers whether it could: what it records goes on without it, and the loss is counted by
-- who called. A record that is locked or full must hold up no login, and no revocation.
CREATE FUNCTION record_security_event(
  event_id uuid, type text, event_time timestamptz, subject jsonb, subjects text[], actor text, reason text,
  network text, source text, details jsonb, kept interval
) RETURNS boolean LANGUAGE plpgsql SET lock_timeout = '100ms' AS $$
BEGIN
  INSERT INTO security_events
    (event_id, type, event_time, subject, subjects, actor, reason, network, source, details, keep_until)
  VALUES (event_id, type, coalesce(event_time, clock_timestamp()), subject, subjects, actor, reason, network, source,
          details, clock_timestamp() + kept)
  ON CONFLICT ON CONSTRAINT security_events_pkey DO NOTHING;
  RETURN true;
EXCEPTION WHEN OTHERS THEN
  RETURN false;
END
$$;
