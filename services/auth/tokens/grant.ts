/** The content of a token to be minted. */

import type { ClientLink, TokenOrigin } from '../records/tokens.js';

/** The login that a user's token is based on. */
interface TokenSession {
  readonly sessionId: string;
  /** The user's generation at the login. */
  readonly generation: bigint;
  readonly authTime: Date;
  /** How the user authenticated (RFC 8176). */
  readonly amr: readonly string[];
}

/** A grant names everything but the issuer, the times and the `jti`, which minting adds. */
export interface Grant {
  readonly subject: string;
  readonly clientId: string;
  readonly audiences: readonly string[];
  readonly scopes: readonly string[];
  readonly roles: readonly string[];
  readonly clients: readonly ClientLink[];
  /** Absent in a service's own token, and when the token is derived from another issuer's. */
  readonly session?: TokenSession | undefined;
  /** The token of another issuer that this one is derived from. */
  readonly origin?: TokenOrigin | undefined;
  /** Together with an origin: when its user last authenticated, if that is known. */
  readonly authTimeSeconds?: number | undefined;
  /** The acting services, the current one first; empty when the subject itself calls. */
  readonly actors?: readonly string[];
  /** The `jti` of every token that this one is derived from. */
  readonly ancestors?: readonly string[];
  /** The token expires no later than this. */
  readonly notAfter?: Date;
  /** The certificate that the token is bound to (RFC 8705); undefined for a bearer token. */
  readonly certificateThumbprint?: string | undefined;
}
