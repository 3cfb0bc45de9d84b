-- Writes many events with one statement, and returns for each whether it was recorded. One block for all of them: a
-- block for each event would double the time, and beyond 64 blocks in a transaction PostgreSQL must look up each of
-- them. If the statement fails, the events are written one by one, so that a bad one is lost alone. A locked table
-- loses all of them at once, because the wait for each would add up.
CREATE FUNCTION record_security_events(events jsonb) RETURNS boolean[] LANGUAGE plpgsql SET lock_timeout = '100ms' AS $$
DECLARE
  outcomes boolean[];
BEGIN
  BEGIN
    INSERT INTO security_events
      (event_id, type, event_time, subject, subjects, actor, reason, network, source, details, keep_until)
    SELECT e."eventId", e.type, coalesce(e.time, clock_timestamp()), e.subject, e.subjects, e.actor, e.reason,
           e.network, e.source, e.details, clock_timestamp() + make_interval(days => e.days)
    FROM jsonb_to_recordset(events) AS e (
      "eventId" uuid, type text, time timestamptz, subject jsonb, subjects text[], actor text, reason text,
      network text, source text, details jsonb, days integer)
    ON CONFLICT ON CONSTRAINT security_events_pkey DO NOTHING;
    RETURN array_fill(true, ARRAY[jsonb_array_length(events)]);
  EXCEPTION
    WHEN lock_not_available THEN
      RETURN array_fill(false, ARRAY[jsonb_array_length(events)]);
    WHEN OTHERS THEN
      NULL;
  END;
  SELECT array_agg(
    record_security_event((e->>'eventId')::uuid, e->>'type', (e->>'time')::timestamptz, e->'subject',
      ARRAY(SELECT jsonb_array_elements_text(e->'subjects')), e->>'actor', e->>'reason', e->>'network',
      e->>'source', e->'details', make_interval(days => (e->>'days')::integer)) ORDER BY n)
  INTO outcomes FROM jsonb_array_elements(events) WITH ORDINALITY AS t (e, n);
  RETURN outcomes;
END
$$;
