-- Users can be disabled, change their password and their roles; names may have letters other than ASCII; guesses
-- are counted for all replicas together.

ALTER TABLE users
  -- Names that look alike have the same skeleton, and only one of them can be taken.
  ADD COLUMN name_skeleton text,
  ADD COLUMN disable_time  timestamptz,
  DROP CONSTRAINT users_username_check,
  ADD CHECK (char_length(username) BETWEEN 3 AND 64);

-- Names of before are plain ASCII. Of those that look alike, the oldest keeps the look to itself.
WITH skeletons AS (
  SELECT user_id, replace(replace(translate(username, '01', 'ol'), 'm', 'rn'), 'w', 'vv') AS skeleton, create_time
  FROM users
), ranked AS (
  SELECT *, row_number() OVER (PARTITION BY skeleton ORDER BY create_time, user_id) AS rank FROM skeletons
)
UPDATE users SET name_skeleton = skeleton || CASE rank WHEN 1 THEN '' ELSE ' ' || users.user_id END
FROM ranked WHERE ranked.user_id = users.user_id;

ALTER TABLE users
  ALTER COLUMN name_skeleton SET NOT NULL,
  ADD UNIQUE (name_skeleton);

ALTER TABLE sessions DROP CONSTRAINT sessions_end_reason_check;
ALTER TABLE sessions ADD CONSTRAINT sessions_end_reason_check CHECK
  (end_reason IN ('LOGOUT', 'REVOKED', 'REFRESH_REUSED', 'USER_REVOKED', 'EPOCH_ENDED', 'PASSWORD_CHANGED',
                  'USER_DISABLED', 'ROLES_CHANGED'));

-- Failed attempts in the present window, by keyed hashes of names and networks: people type passwords where their
-- name belongs. A crash may empty it, and then the windows begin anew.
CREATE UNLOGGED TABLE attempt_counters (
  key      bytea PRIMARY KEY CHECK (octet_length(key) = 32),
  attempts integer NOT NULL CHECK (attempts >= 0),
  end_time timestamptz NOT NULL
);
CREATE INDEX attempt_counters_end_time ON attempt_counters (end_time);

-- From where users have logged in, by keyed hashes of name and network.
CREATE TABLE login_networks (
  key           bytea PRIMARY KEY CHECK (octet_length(key) = 32),
  user_id       uuid NOT NULL REFERENCES users ON DELETE CASCADE,
  last_use_time timestamptz NOT NULL
);
CREATE INDEX login_networks_user_id ON login_networks (user_id);
CREATE INDEX login_networks_last_use_time ON login_networks (last_use_time);
