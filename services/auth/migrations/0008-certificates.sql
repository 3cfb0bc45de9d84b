-- Tokens bound to certificates (RFC 8705).
ALTER TABLE clients
  -- The tokens that it gets are bound to the certificate that it shows; without one it gets none.
  ADD COLUMN certificate_bound boolean NOT NULL DEFAULT false;

ALTER TABLE sessions
  -- The certificate of the connection that the user logged in over; its tokens are bound to it, and so is refreshing.
  ADD COLUMN certificate_thumbprint text CHECK (certificate_thumbprint ~ '^[A-Za-z0-9_-]{43}$');
