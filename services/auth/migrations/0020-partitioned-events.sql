-- Security events in partitions by time: expired ones are dropped whole. Events arrive in a table without partitions, so
-- that neither a missing partition nor a lock on one holds up an event. Placing an event moves it into a partition.

-- The position that belongs to a time, in microseconds: later positions are later times.
CREATE FUNCTION security_position(moment timestamptz) RETURNS bigint LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
  SELECT (date_part('epoch', moment) * 1000000)::bigint
$$;

-- The name is needed for the table.
ALTER INDEX security_events_unplaced RENAME TO security_events_without_place;

-- Events without a position.
CREATE TABLE security_events_unplaced (
  event_id   uuid PRIMARY KEY,
  -- Which table it belongs to.
  life       text NOT NULL CHECK (life IN ('lasting', 'routine', 'report')),
  type       text NOT NULL CHECK (char_length(type) BETWEEN 1 AND 64),
  event_time timestamptz NOT NULL,
  subject    jsonb NOT NULL,
  subjects   text[] NOT NULL,
  actor      text NOT NULL,
  reason     text NOT NULL,
  network    text NOT NULL,
  source     text NOT NULL,
  details    jsonb NOT NULL,
  keep_until timestamptz NOT NULL
) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 10000);
CREATE INDEX security_events_unplaced_order ON security_events_unplaced (event_time, event_id);

-- The ids of events and reports that may be sent again, for a day.
CREATE TABLE security_event_ids (
  event_id    uuid PRIMARY KEY,
  record_time timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE INDEX security_event_ids_record_time ON security_event_ids (record_time);

CREATE TABLE security_events_lasting (
  position   bigint NOT NULL CHECK (position > 0),
  event_id   uuid NOT NULL,
  event_time timestamptz NOT NULL,
  keep_until timestamptz NOT NULL,
  type       text NOT NULL,
  subject    jsonb NOT NULL,
  -- Every identifier in the subject, to be found by.
  subjects   text[] NOT NULL,
  actor      text NOT NULL,
  reason     text NOT NULL,
  network    text NOT NULL,
  source     text NOT NULL,
  details    jsonb NOT NULL
) PARTITION BY RANGE (position);
CREATE TABLE security_events_routine (LIKE security_events_lasting INCLUDING ALL) PARTITION BY RANGE (position);
CREATE TABLE security_reports (LIKE security_events_lasting INCLUDING ALL) PARTITION BY RANGE (position);

-- For how long each partition of a table takes events, in microseconds.
CREATE FUNCTION security_partition_us(parent regclass) RETURNS bigint LANGUAGE sql STABLE AS $$
  SELECT CASE parent
    WHEN 'security_events_lasting'::regclass THEN 2419200000000
    WHEN 'security_events_routine'::regclass THEN 259200000000
    WHEN 'security_reports'::regclass THEN 3600000000
  END
$$;

CREATE FUNCTION refuse_change_of_placed_event() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  -- Placing moves events out of the table without positions.
  IF TG_OP = 'DELETE' AND TG_TABLE_NAME = 'security_events_unplaced'
     AND current_setting('portcullis.placing', true) = 'on' THEN
    RETURN OLD;
  END IF;
  RAISE EXCEPTION 'a security event is neither changed nor dropped before its time';
END
$$;
CREATE TRIGGER security_events_only_grow BEFORE UPDATE OR DELETE ON security_events_unplaced
  FOR EACH ROW EXECUTE FUNCTION refuse_change_of_placed_event();
CREATE TRIGGER security_events_not_truncated BEFORE TRUNCATE ON security_events_unplaced
  FOR EACH STATEMENT EXECUTE FUNCTION refuse_change_of_placed_event();

-- Creates the partition that contains a position, unless it exists. Does not block readers: the new table is attached.
CREATE FUNCTION make_security_partition(parent regclass, at bigint) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER AS $$
DECLARE
  width bigint := security_partition_us(parent);
  first bigint := at / width * width;
  schema text := (SELECT nspname FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace WHERE c.oid = parent);
  name text := format('%s_p%s', (SELECT relname FROM pg_class WHERE oid = parent),
                      to_char(to_timestamp(first / 1000000) AT TIME ZONE 'UTC', 'YYYYMMDDHH24'));
BEGIN
  IF to_regclass(format('%I.%I', schema, name)) IS NOT NULL THEN
    RETURN;
  END IF;
  -- Another replica may be creating it: this lock conflicts with itself, and with no reader or writer.
  EXECUTE format('LOCK TABLE %s IN SHARE UPDATE EXCLUSIVE MODE', parent);
  IF to_regclass(format('%I.%I', schema, name)) IS NOT NULL THEN
    RETURN;
  END IF;
  EXECUTE format('CREATE TABLE %I.%I (LIKE %s INCLUDING ALL)', schema, name, parent);
  EXECUTE format('CREATE TRIGGER security_events_not_truncated BEFORE TRUNCATE ON %I.%I
                    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change_of_placed_event()', schema, name);
  EXECUTE format('ALTER TABLE %s ATTACH PARTITION %I.%I FOR VALUES FROM (%s) TO (%s)',
                 parent, schema, name, first, first + width);
END
$$;

-- Creates the partitions of the coming weeks, days and hours, and drops those whose events have all expired. Returns how
-- many it dropped.
CREATE FUNCTION keep_security_partitions() RETURNS integer
LANGUAGE plpgsql SECURITY DEFINER SET lock_timeout = '300ms' AS $$
DECLARE
  parent regclass;
  width bigint;
  ahead bigint;
  upcoming bigint;
  oldest record;
  ends_live boolean;
  has_live boolean;
  dropped integer := 0;
BEGIN
  FOR parent, ahead IN VALUES ('security_events_lasting'::regclass, 2), ('security_events_routine', 3), ('security_reports', 6)
  LOOP
    width := security_partition_us(parent);
    upcoming := greatest((SELECT position FROM security_stream), security_position(clock_timestamp()));
    FOR n IN 0..ahead LOOP
      PERFORM make_security_partition(parent, upcoming + n * width);
    END LOOP;
    FOR oldest IN
      SELECT child.oid::regclass AS name,
             (regexp_match(pg_get_expr(child.relpartbound, child.oid), 'TO \(''?([0-9]+)'))[1]::bigint AS ends
      FROM pg_inherits JOIN pg_class AS child ON child.oid = inhrelid
      WHERE inhparent = parent ORDER BY ends
    LOOP
      EXIT WHEN oldest.ends IS NULL OR oldest.ends > upcoming;
      -- The last event is asked first: while it is kept, the others need not be read.
      EXECUTE format('SELECT keep_until >= clock_timestamp() FROM %s ORDER BY position DESC LIMIT 1', oldest.name)
        INTO ends_live;
      EXIT WHEN ends_live;
      EXECUTE format('SELECT EXISTS (SELECT FROM %s WHERE keep_until >= clock_timestamp())', oldest.name)
        INTO has_live;
      EXIT WHEN has_live;
      EXECUTE format('DROP TABLE %s', oldest.name);
      dropped := dropped + 1;
    END LOOP;
  END LOOP;
  RETURN dropped;
END
$$;

-- Gives positions to events, and returns how many. The caller holds the lock on security_stream.
CREATE FUNCTION place_security_events(events_max integer) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
  base bigint := greatest((SELECT position FROM security_stream), security_position(clock_timestamp()));
  moved bigint;
BEGIN
  IF NOT EXISTS (SELECT FROM security_events_unplaced) THEN
    RETURN 0;
  END IF;
  PERFORM set_config('portcullis.placing', 'on', true);
  BEGIN
    moved := move_security_events(base, events_max);
  EXCEPTION WHEN check_violation THEN
    -- A partition is missing: auth is new, has not run for long, or the clock was set ahead.
    FOR n IN 0..1 LOOP
      PERFORM make_security_partition('security_events_lasting', base + n * events_max),
              make_security_partition('security_events_routine', base + n * events_max),
              make_security_partition('security_reports', base + n * events_max);
    END LOOP;
    moved := move_security_events(base, events_max);
  END;
  PERFORM set_config('portcullis.placing', '', true);
  RETURN moved;
END
$$;

-- Records one event: `repeatable` ones only once. The times and the life come from the same clock.
CREATE FUNCTION insert_security_events(events jsonb) RETURNS void LANGUAGE sql AS $$
  WITH sent AS MATERIALIZED (
    SELECT * FROM jsonb_to_recordset(events) AS e (
      "eventId" uuid, type text, time timestamptz, subject jsonb, subjects text[], actor text, reason text,
      network text, source text, details jsonb, days integer, routine boolean, repeatable boolean)
  ), fresh AS (
    INSERT INTO security_event_ids (event_id) SELECT "eventId" FROM sent WHERE repeatable
    ON CONFLICT DO NOTHING RETURNING event_id
  )
  INSERT INTO security_events_unplaced
    (event_id, life, type, event_time, subject, subjects, actor, reason, network, source, details, keep_until)
  -- Instances of the previous version do not say what is routine.
  SELECT "eventId", CASE WHEN coalesce(routine, days <= 30) THEN 'routine' ELSE 'lasting' END, type,
         coalesce(time, clock_timestamp()), subject, subjects, actor, reason, network, source, details,
         clock_timestamp() + make_interval(days => days)
  FROM sent WHERE repeatable IS NOT TRUE OR "eventId" IN (SELECT event_id FROM fresh)
$$;

-- As before: one block for all events, and one by one if that fails, so that a bad one is lost alone.
CREATE OR REPLACE FUNCTION record_security_events(events jsonb) RETURNS boolean[]
LANGUAGE plpgsql SET lock_timeout = '100ms' AS $$
DECLARE
  outcomes boolean[] := '{}';
  event jsonb;
BEGIN
  BEGIN
    PERFORM insert_security_events(events);
    RETURN array_fill(true, ARRAY[jsonb_array_length(events)]);
  EXCEPTION
    WHEN lock_not_available THEN
      RETURN array_fill(false, ARRAY[jsonb_array_length(events)]);
    WHEN OTHERS THEN
      NULL;
  END;
  FOR event IN SELECT * FROM jsonb_array_elements(events) LOOP
    BEGIN
      PERFORM insert_security_events(jsonb_build_array(event));
      outcomes := outcomes || true;
    EXCEPTION WHEN OTHERS THEN
      outcomes := outcomes || false;
    END;
  END LOOP;
  RETURN outcomes;
END
$$;

-- Calls of the former function that are under way when this migration commits fall back on this one.
CREATE OR REPLACE FUNCTION record_security_event(
  event_id uuid, type text, event_time timestamptz, subject jsonb, subjects text[], actor text, reason text,
  network text, source text, details jsonb, kept interval
) RETURNS boolean LANGUAGE plpgsql SET lock_timeout = '100ms' AS $$
BEGIN
  INSERT INTO security_events_unplaced
    (event_id, life, type, event_time, subject, subjects, actor, reason, network, source, details, keep_until)
  VALUES (event_id, CASE WHEN kept <= interval '30 days' THEN 'routine' ELSE 'lasting' END, type,
          coalesce(event_time, clock_timestamp()), subject, subjects, actor, reason, network, source, details,
          clock_timestamp() + kept)
  ON CONFLICT ON CONSTRAINT security_events_unplaced_pkey DO NOTHING;
  RETURN true;
EXCEPTION WHEN OTHERS THEN
  RETURN false;
END
$$;

-- Functions that run with the owner's rights find the owner's tables only.
DO $$ BEGIN
  EXECUTE format('ALTER FUNCTION make_security_partition SET search_path = pg_catalog, %I, pg_temp', current_schema());
  EXECUTE format('ALTER FUNCTION keep_security_partitions SET search_path = pg_catalog, %I, pg_temp', current_schema());
END $$;

-- Existing events move with positions that are times, in their order. The table is not locked until the last step, so
-- that events go on being recorded: what came meanwhile is moved then. Indexes are created after the rows.
CREATE TEMPORARY TABLE security_events_places
  (former bigint PRIMARY KEY, position bigint NOT NULL, late_us bigint NOT NULL) ON COMMIT DROP;

CREATE FUNCTION pg_temp.move_former_events(after bigint) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
  life text;
  parent regclass;
  kept text;
  at bigint;
BEGIN
  -- Position and lateness never fall, so that the last row has the greatest.
  INSERT INTO security_events_places
  WITH last AS (SELECT p.position - p.former AS shift, late_us FROM security_events_places p ORDER BY former DESC LIMIT 1)
  SELECT former, place, greatest(max(place - own) OVER (ORDER BY former), (SELECT late_us FROM last)) FROM (
    SELECT position AS former, security_position(event_time) AS own,
           position + greatest(max(security_position(event_time) - position) OVER (ORDER BY position),
                               (SELECT shift FROM last)) AS place
    FROM security_events WHERE position > after) AS placed;
  IF after = 0 THEN
    ANALYZE security_events_places;
  END IF;
  FOR parent, kept IN VALUES
    ('security_events_lasting'::regclass, 'type <> ''service-report'' AND keep_until - event_time > interval ''31 days'''),
    ('security_events_routine', 'type <> ''service-report'' AND keep_until - event_time <= interval ''31 days'''),
    ('security_reports', 'type = ''service-report''')
  LOOP
    FOR at IN EXECUTE format(
      'SELECT DISTINCT p.position / %1$s * %1$s FROM security_events e JOIN security_events_places p ON former = e.position
       WHERE former > $1 AND keep_until > clock_timestamp() AND %2$s', security_partition_us(parent), kept) USING after
    LOOP
      PERFORM make_security_partition(parent, at);
    END LOOP;
    EXECUTE format(
      'INSERT INTO %s
         (position, event_id, event_time, keep_until, type, subject, subjects, actor, reason, network, source, details)
       SELECT p.position, event_id, event_time, keep_until, type, subject, subjects, actor, reason, network, source, details
       FROM security_events e JOIN security_events_places p ON former = e.position
       WHERE former > $1 AND keep_until > clock_timestamp() AND %s', parent, kept) USING after;
  END LOOP;
END
$$;

SELECT pg_temp.move_former_events(0);

ALTER TABLE security_events_lasting ADD PRIMARY KEY (position);
ALTER TABLE security_events_routine ADD PRIMARY KEY (position);
ALTER TABLE security_reports ADD PRIMARY KEY (position);
CREATE INDEX security_events_lasting_type ON security_events_lasting (type, position);
CREATE INDEX security_events_routine_type ON security_events_routine (type, position);
CREATE INDEX security_events_lasting_subjects ON security_events_lasting USING gin (subjects);
CREATE INDEX security_events_routine_subjects ON security_events_routine USING gin (subjects);

CREATE TRIGGER security_events_only_grow BEFORE UPDATE OR DELETE ON security_events_lasting
  FOR EACH ROW EXECUTE FUNCTION refuse_change_of_placed_event();
CREATE TRIGGER security_events_only_grow BEFORE UPDATE OR DELETE ON security_events_routine
  FOR EACH ROW EXECUTE FUNCTION refuse_change_of_placed_event();
CREATE TRIGGER security_events_only_grow BEFORE UPDATE OR DELETE ON security_reports
  FOR EACH ROW EXECUTE FUNCTION refuse_change_of_placed_event();
CREATE TRIGGER security_events_not_truncated BEFORE TRUNCATE ON security_events_lasting
  FOR EACH STATEMENT EXECUTE FUNCTION refuse_change_of_placed_event();
CREATE TRIGGER security_events_not_truncated BEFORE TRUNCATE ON security_events_routine
  FOR EACH STATEMENT EXECUTE FUNCTION refuse_change_of_placed_event();
CREATE TRIGGER security_events_not_truncated BEFORE TRUNCATE ON security_reports
  FOR EACH STATEMENT EXECUTE FUNCTION refuse_change_of_placed_event();

SELECT make_security_partition('security_events_lasting', security_position(clock_timestamp())),
       make_security_partition('security_events_routine', security_position(clock_timestamp())),
       make_security_partition('security_reports', security_position(clock_timestamp()));

-- From here on, an event waits for the lock. It takes a few milliseconds.
LOCK TABLE security_stream, security_events IN ACCESS EXCLUSIVE MODE;
ALTER TABLE security_stream
  -- How far any event's time was before and after its position, in microseconds: a search by time reads the positions
  -- of that time, widened by these.
  ADD COLUMN late_us  bigint NOT NULL DEFAULT 0 CHECK (late_us >= 0),
  ADD COLUMN early_us bigint NOT NULL DEFAULT 0 CHECK (early_us >= 0);
SELECT pg_temp.move_former_events(coalesce((SELECT former FROM security_events_places ORDER BY former DESC LIMIT 1), 0));
INSERT INTO security_events_unplaced
  (event_id, life, type, event_time, subject, subjects, actor, reason, network, source, details, keep_until)
SELECT event_id, CASE WHEN type = 'service-report' THEN 'report'
                      WHEN keep_until - event_time > interval '31 days' THEN 'lasting' ELSE 'routine' END,
       type, event_time, subject, subjects, actor, reason, network, source, details, keep_until
FROM security_events WHERE position IS NULL;
INSERT INTO security_event_ids (event_id)
SELECT event_id FROM security_events WHERE event_time > clock_timestamp() - interval '1 hour';
UPDATE security_stream SET
  position = coalesce((SELECT position FROM security_events_places ORDER BY former DESC LIMIT 1), 0),
  judged = coalesce((SELECT position FROM security_events_places WHERE former <= judged
                     ORDER BY former DESC LIMIT 1), 0),
  late_us = coalesce((SELECT greatest(late_us, 0) FROM security_events_places ORDER BY former DESC LIMIT 1), 0);
DROP TABLE security_events;
DROP FUNCTION refuse_change_of_security_events();

-- Moves events from the table without positions into partitions, in the order of their times. The caller holds the lock
-- on security_stream.
CREATE FUNCTION move_security_events(base bigint, events_max integer, OUT moved bigint) LANGUAGE sql AS $$
  WITH taken AS (
    DELETE FROM security_events_unplaced WHERE event_id IN (
      SELECT event_id FROM security_events_unplaced ORDER BY event_time, event_id LIMIT events_max)
    RETURNING *
  ), fresh AS MATERIALIZED (
    SELECT *, base + row_number() OVER (ORDER BY event_time, event_id) AS position FROM taken
  ), lasting AS (
    INSERT INTO security_events_lasting
      (position, event_id, event_time, keep_until, type, subject, subjects, actor, reason, network, source, details)
    SELECT position, event_id, event_time, keep_until, type, subject, subjects, actor, reason, network, source, details
    FROM fresh WHERE life = 'lasting'
  ), routine AS (
    INSERT INTO security_events_routine
      (position, event_id, event_time, keep_until, type, subject, subjects, actor, reason, network, source, details)
    SELECT position, event_id, event_time, keep_until, type, subject, subjects, actor, reason, network, source, details
    FROM fresh WHERE life = 'routine'
  ), reports AS (
    INSERT INTO security_reports
      (position, event_id, event_time, keep_until, type, subject, subjects, actor, reason, network, source, details)
    SELECT position, event_id, event_time, keep_until, type, subject, subjects, actor, reason, network, source, details
    FROM fresh WHERE life = 'report'
  ), stream AS (
    UPDATE security_stream SET position = places.last,
      late_us = greatest(late_us, places.late), early_us = greatest(early_us, places.early)
    FROM (SELECT max(position) AS last, max(position - security_position(event_time)) AS late,
                 max(security_position(event_time) - position) AS early FROM fresh HAVING count(*) > 0) AS places
  ) SELECT count(*) FROM fresh
$$;

-- The security event that many revocations of one transaction share.
ALTER TABLE revocation_entries ADD COLUMN event_id uuid;

-- When auth knew which entries an instance had, for as long as the entries are listed. Unlike `instances`, it survives a
-- crash of the database: it is evidence.
CREATE TABLE instance_names (
  -- Of service, instance and epoch: see follower_id.
  follower   uuid PRIMARY KEY,
  service    text NOT NULL,
  instance   bytea NOT NULL CHECK (octet_length(instance) = 16),
  begin_time timestamptz NOT NULL
);
CREATE TABLE instance_positions (
  follower   uuid NOT NULL,
  sequence   bigint NOT NULL CHECK (sequence > 0),
  -- It had all entries up to this one; otherwise this one alone.
  up_to      boolean NOT NULL,
  known_time timestamptz NOT NULL,
  PRIMARY KEY (follower, sequence, up_to)
);
CREATE INDEX instance_positions_known_time ON instance_positions USING brin (known_time) WITH (autosummarize = on);
CREATE FUNCTION follower_id(service text, instance bytea, epoch bytea) RETURNS uuid LANGUAGE sql IMMUTABLE AS $$
  SELECT encode(substring(sha256(convert_to(service, 'UTF8') || '\x00'::bytea || instance || epoch) FOR 16), 'hex')::uuid
$$;

-- All events in one place, for people; auth reads the tables.
CREATE VIEW security_events AS
  SELECT position, event_id, event_time, keep_until, type, subject, subjects, actor, reason, network, source, details
  FROM security_events_lasting
  UNION ALL
  SELECT position, event_id, event_time, keep_until, type, subject, subjects, actor, reason, network, source, details
  FROM security_events_routine
  UNION ALL
  SELECT position, event_id, event_time, keep_until, type, subject, subjects, actor, reason, network, source, details
  FROM security_reports
  UNION ALL
  SELECT NULL, event_id, event_time, keep_until, type, subject, subjects, actor, reason, network, source, details
  FROM security_events_unplaced;
