/** Certificate-bound tokens of clients (RFC 8705). */

import { AuthError } from '../errors.js';
import type { Client } from '../records/clients.js';

/**
 * The thumbprint of the certificate that a client's new token is bound to; undefined when the token is not bound.
 *
 * @param mustBind - binds the token whatever the client's own setting is
 * @throws ServiceError CERTIFICATE_REQUIRED when the token must be bound and the connection has no client certificate
 */
export function certificateBindingOf(
  client: Client,
  thumbprint: string | undefined,
  mustBind = false,
): string | undefined {
  if (!client.certificateBound && !mustBind) return undefined;
  if (thumbprint !== undefined) return thumbprint;
  throw new AuthError(
    'CERTIFICATE_REQUIRED',
    'the token would be bound to a certificate, and none was shown',
  );
}
