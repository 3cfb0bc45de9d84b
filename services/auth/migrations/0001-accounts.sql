-- Users, their sessions and refresh tokens, clients, signing keys. No secret is stored as such:
-- passwords and client secrets as argon2id, refresh tokens as SHA-256, private keys encrypted.

CREATE TABLE users (
  user_id          uuid PRIMARY KEY,
  username         text NOT NULL UNIQUE CHECK (username ~ '^[a-z0-9._-]{3,64}$'),
  password_hash    text NOT NULL,
  -- Raised with every change of the password: a login that hashed the old one must not succeed later.
  password_version bigint NOT NULL DEFAULT 1,
  -- Raised to kill every token issued under an older one.
  generation       bigint NOT NULL DEFAULT 1,
  create_time      timestamptz NOT NULL DEFAULT clock_timestamp()
);

CREATE TABLE user_roles (
  user_id uuid NOT NULL REFERENCES users ON DELETE CASCADE,
  role    text NOT NULL CHECK (role IN ('customer', 'operator', 'security', 'admin')),
  PRIMARY KEY (user_id, role)
);

CREATE TABLE clients (
  client_id           text PRIMARY KEY CHECK (client_id ~ '^[a-z0-9][a-z0-9._-]{0,63}$'),
  generation          bigint NOT NULL DEFAULT 1,
  -- How the client proves who it is: the one or the other, or neither.
  public_key_pem      text,
  secret_hash         text,
  audiences           text[] NOT NULL DEFAULT '{}',
  scopes              text[] NOT NULL DEFAULT '{}',
  exchange_audiences  text[] NOT NULL DEFAULT '{}',
  create_time         timestamptz NOT NULL DEFAULT clock_timestamp(),
  CHECK (public_key_pem IS NULL OR secret_hash IS NULL)
);

-- The client of everybody who logs in without naming one. It has no credential, so it gets no token of its own.
INSERT INTO clients (client_id) VALUES ('direct');

-- The assertions with which clients have proved who they are, until they expire: each is good once.
CREATE TABLE client_assertions (
  client_id   text NOT NULL REFERENCES clients ON DELETE CASCADE,
  jti_hash    bytea NOT NULL,
  expire_time timestamptz NOT NULL,
  PRIMARY KEY (client_id, jti_hash)
);
CREATE INDEX client_assertions_expire_time ON client_assertions (expire_time);

CREATE TABLE sessions (
  session_id        uuid PRIMARY KEY,
  user_id           uuid NOT NULL REFERENCES users,
  client_id         text NOT NULL REFERENCES clients,
  -- The generations under which the login happened; a session of older ones gets no token any more.
  generation        bigint NOT NULL,
  client_generation bigint NOT NULL,
  device_name       text NOT NULL,
  audiences         text[] NOT NULL,
  scopes            text[] NOT NULL,
  amr               text[] NOT NULL,
  create_time       timestamptz NOT NULL,
  last_use_time     timestamptz NOT NULL,
  expire_time       timestamptz NOT NULL,
  end_time          timestamptz,
  end_reason        text CHECK (end_reason IN ('LOGOUT', 'REVOKED', 'REFRESH_REUSED', 'USER_REVOKED')),
  CHECK ((end_time IS NULL) = (end_reason IS NULL))
);
CREATE INDEX sessions_open ON sessions (user_id, create_time DESC, session_id DESC) WHERE end_time IS NULL;
CREATE INDEX sessions_expire_time ON sessions (expire_time);

CREATE TABLE refresh_tokens (
  -- SHA-256 of the token: whoever reads this table can refresh nothing.
  token_hash     bytea PRIMARY KEY CHECK (octet_length(token_hash) = 32),
  session_id     uuid NOT NULL REFERENCES sessions ON DELETE CASCADE,
  expire_time    timestamptz NOT NULL,
  use_time       timestamptz,
  -- Set with use_time: who used it, so that the same request gets the same successor again.
  request_id     text,
  successor_hash bytea
);
CREATE INDEX refresh_tokens_session_id ON refresh_tokens (session_id);

CREATE TABLE signing_keys (
  kid                text PRIMARY KEY,
  purpose            text NOT NULL CHECK (purpose IN ('token', 'broadcast')),
  algorithm          text NOT NULL,
  -- The epoch of the revocation log that the key belongs to: no key outlives it.
  epoch              bytea NOT NULL CHECK (octet_length(epoch) = 16),
  state              text NOT NULL CHECK (state IN ('next', 'signing', 'verify-only', 'retired')),
  public_jwk         text NOT NULL,
  -- Nonce, tag and ciphertext of AES-256-GCM.
  sealed_private_key bytea NOT NULL,
  create_time        timestamptz NOT NULL DEFAULT clock_timestamp(),
  state_time         timestamptz NOT NULL DEFAULT clock_timestamp()
);
-- At any time one key of each purpose signs, and at most one is next.
CREATE UNIQUE INDEX signing_keys_signing ON signing_keys (epoch, purpose) WHERE state = 'signing';
CREATE UNIQUE INDEX signing_keys_next ON signing_keys (epoch, purpose) WHERE state = 'next';

-- Requests that are carried out once, and what was answered to them.
CREATE TABLE requests (
  subject      text NOT NULL,
  method       text NOT NULL,
  request_id   text NOT NULL,
  payload_hash bytea NOT NULL,
  answer       bytea NOT NULL,
  created_at   timestamptz NOT NULL DEFAULT clock_timestamp(),
  PRIMARY KEY (subject, method, request_id)
);
CREATE INDEX requests_created_at ON requests (created_at);
