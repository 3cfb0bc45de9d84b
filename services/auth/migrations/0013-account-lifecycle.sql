-- Administrators reset passwords and delete users.

ALTER TABLE users
  -- The row of a deleted user stays, so that no other user ever gets the id or the name. It has no password and no role.
  ADD COLUMN delete_time timestamptz,
  -- An instance of an older version sees the user as disabled, and cannot enable it.
  ADD CHECK (delete_time IS NULL OR disable_time IS NOT NULL);

-- The reset tokens with which users set a new password: one per user, until it is used or expires.
CREATE TABLE password_resets (
  user_id     uuid PRIMARY KEY REFERENCES users ON DELETE CASCADE,
  -- SHA-256 of the token: a reader of this table cannot set a password.
  token_hash  bytea NOT NULL UNIQUE CHECK (octet_length(token_hash) = 32),
  expire_time timestamptz NOT NULL
);
CREATE INDEX password_resets_expire_time ON password_resets (expire_time);

ALTER TABLE sessions DROP CONSTRAINT sessions_end_reason_check;
ALTER TABLE sessions ADD CONSTRAINT sessions_end_reason_check CHECK
  (end_reason IN ('LOGOUT', 'REVOKED', 'REFRESH_REUSED', 'USER_REVOKED', 'EPOCH_ENDED', 'PASSWORD_CHANGED',
                  'USER_DISABLED', 'ROLES_CHANGED', 'USER_DELETED'));
