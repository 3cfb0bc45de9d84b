-- The policy as rows: services with their scopes, and roles with the scopes that they grant. Before, it was in the source.

CREATE TABLE policy (
  -- There is one row.
  only_row    boolean PRIMARY KEY DEFAULT true CHECK (only_row),
  -- Another one after every change, also after a restore: processes keep what they have read under it.
  etag        uuid NOT NULL DEFAULT gen_random_uuid(),
  -- False for the built-in policy, which the bootstrap file may replace once.
  changed     boolean NOT NULL DEFAULT false,
  update_time timestamptz NOT NULL DEFAULT clock_timestamp()
);

CREATE TABLE services (
  audience    text PRIMARY KEY CHECK (audience ~ '^[a-z0-9][a-z0-9._-]{0,99}$'),
  description text NOT NULL DEFAULT '',
  -- The clients that serve the audience; the client of the same name when empty.
  client_ids  text[] NOT NULL DEFAULT '{}'
);

CREATE TABLE service_scopes (
  scope    text PRIMARY KEY CHECK (scope ~ '^[a-z0-9][a-z0-9._-]{0,99}$'),
  audience text NOT NULL REFERENCES services ON DELETE CASCADE
);
CREATE INDEX service_scopes_audience ON service_scopes (audience);

CREATE TABLE roles (
  role        text PRIMARY KEY CHECK (role ~ '^[a-z0-9][a-z0-9._-]{0,99}$'),
  description text NOT NULL DEFAULT ''
);

CREATE TABLE role_scopes (
  role  text NOT NULL REFERENCES roles ON DELETE CASCADE,
  scope text NOT NULL REFERENCES service_scopes ON DELETE CASCADE,
  PRIMARY KEY (role, scope)
);
CREATE INDEX role_scopes_scope ON role_scopes (scope);

-- What a change took from roles and live sessions may still have. It is written with the change and worked off in batches.
CREATE TABLE policy_narrowings (
  narrowing_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  -- The scopes that roles lost, and the services of these scopes.
  scopes       text[] NOT NULL,
  audiences    text[] NOT NULL,
  actor        text NOT NULL,
  event_id     uuid NOT NULL,
  create_time  timestamptz NOT NULL DEFAULT clock_timestamp(),
  -- The last user that a batch has looked at.
  after_user   uuid,
  -- The number of users whose tokens were revoked, and the receipt of the last batch that revoked any.
  users        bigint NOT NULL DEFAULT 0,
  sequence     bigint NOT NULL DEFAULT 0,
  enforced_by  timestamptz,
  end_time     timestamptz
);
CREATE INDEX policy_narrowings_pending ON policy_narrowings (narrowing_id) WHERE end_time IS NULL;

INSERT INTO services (audience, description) VALUES ('auth', 'Logins, tokens, revocations and their administration');
INSERT INTO service_scopes (scope, audience) SELECT scope, 'auth' FROM unnest(ARRAY[
  'auth.self', 'auth.users.read', 'auth.users.write', 'auth.clients.write', 'auth.keys.write', 'auth.policy.read',
  'auth.policy.write', 'auth.revoke', 'auth.security.read', 'auth.sync', 'auth.exchange', 'auth.introspect']) AS scope;
INSERT INTO roles (role, description) VALUES
  ('admin', 'Administers users, clients, keys and the policy'),
  ('security', 'Revokes, and reads security events');
INSERT INTO role_scopes (role, scope) SELECT 'admin', scope FROM unnest(ARRAY[
  'auth.self', 'auth.users.read', 'auth.users.write', 'auth.clients.write', 'auth.keys.write', 'auth.policy.read',
  'auth.policy.write', 'auth.revoke', 'auth.security.read']) AS scope;
INSERT INTO role_scopes (role, scope) SELECT 'security', scope FROM unnest(ARRAY[
  'auth.self', 'auth.revoke', 'auth.security.read', 'auth.users.read']) AS scope;

-- A database in use has the services and roles that were in the source.
CREATE TEMPORARY TABLE in_use ON COMMIT DROP AS
  SELECT FROM (SELECT) AS always WHERE EXISTS (SELECT FROM users) OR EXISTS (SELECT FROM clients WHERE client_id <> 'direct');
INSERT INTO policy (changed) SELECT EXISTS (SELECT FROM in_use);
INSERT INTO services (audience, description)
  SELECT v.* FROM in_use, (VALUES ('inventory', 'Items, stock and reservations'),
                                  ('payment', 'Accounts and payments')) AS v;
INSERT INTO service_scopes (scope, audience)
  SELECT scope, split_part(scope, '.', 1) FROM in_use, unnest(ARRAY[
    'inventory.read', 'inventory.reserve', 'inventory.manage', 'inventory.settle',
    'payment.read', 'payment.pay', 'payment.manage']) AS scope;
INSERT INTO roles (role, description)
  SELECT v.* FROM in_use, (VALUES ('customer', 'Buys'), ('operator', 'Manages stock and accounts')) AS v;
INSERT INTO role_scopes (role, scope)
  SELECT role, scope FROM in_use, (VALUES ('customer'), ('operator')) AS r (role),
    unnest(ARRAY['auth.self', 'inventory.read', 'inventory.reserve', 'payment.read', 'payment.pay']) AS scope;
INSERT INTO role_scopes (role, scope)
  SELECT 'operator', scope FROM in_use, unnest(ARRAY['inventory.manage', 'payment.manage']) AS scope;

ALTER TABLE user_roles
  DROP CONSTRAINT user_roles_role_check,
  ADD FOREIGN KEY (role) REFERENCES roles;
-- The users of a role are counted before it is removed.
CREATE INDEX user_roles_role ON user_roles (role);
