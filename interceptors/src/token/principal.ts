/** Who calls, as verified, and the doors through which a handler asks about it. */

import type { Metadata } from '@grpc/grpc-js';

/** Who calls. Every field was signed by the issuer; nothing here comes from the peer. */
export interface Principal {
  /** Who issued the token (`iss`). A caller is the pair of issuer and subject. */
  readonly issuer: string;
  /**
   * The pair in one word, which is whose things are whose: the subject itself when it is ours, issuer and subject when
   * it is another issuer's, whether it calls with that issuer's token or a service of ours acts for it.
   */
  readonly id: string;
  /**
   * Whom the token speaks for (`sub`): a user's identifier, or a service's client id. Two issuers may have the same
   * one.
   */
  readonly subject: string;
  /** The client that the token was issued to (`client_id`). */
  readonly clientId: string;
  /** The token's identifier (`jti`), a UUID. */
  readonly tokenId: string;
  /** The session it belongs to (`sid`), a UUID; services have none. */
  readonly sessionId: string | undefined;
  /** A user, directly or through a service acting for it; or a service acting for itself. */
  readonly kind: 'USER' | 'SERVICE';
  /** What the token may be used for (`scope`). */
  readonly scopes: ReadonlySet<string>;
  /** What the subject is (`roles`). */
  readonly roles: ReadonlySet<string>;
  /** The services that the token is for (`aud`). */
  readonly audiences: readonly string[];
  /** The chain of services that act for the subject (`act`, RFC 8693), the present one first. */
  readonly actors: readonly string[];
  /** When the subject last proved who it is (`auth_time`), in seconds since the epoch. */
  readonly authTimeSeconds: number | undefined;
  /** When the token expires (`exp`), in seconds since the epoch. */
  readonly expiresAtSeconds: number;
}

/** Any of grpc-js's four kinds of server calls. */
export interface AnyCall {
  readonly metadata: Metadata;
}

/** What the interceptor knows of a call, and the handler may ask. */
export interface CallState {
  readonly path: string;
  readonly principal: Principal | undefined;
  readonly bearer: string | undefined;
  readonly signal: AbortSignal;
  readonly certificateThumbprint: string | undefined;
  /** Milliseconds for which the caller may be relied on. Throws when it no longer may. */
  stillAllowed(): number;
  /** Tells the log of an error that the caller is not told of. */
  reportFailure(error: unknown): void;
}

// A symbol is no metadata: it never leaves the process, no peer can set it, and a clone does not have it. Opaque data
// (`setOpaque`) would be all that too, for the price of a Map on every call.
const STATE = Symbol('portcullis.call');

interface Guarded extends Metadata {
  [STATE]?: CallState;
}

/** Hangs the state on the metadata that the handler will see. */
export function attachState(metadata: Metadata, state: CallState): void {
  (metadata as Guarded)[STATE] = state;
}

/** The state of a call; undefined when no guard saw it. */
export function stateOf(call: AnyCall): CallState | undefined {
  return (call.metadata as Guarded)[STATE];
}

/**
 * Who calls.
 *
 * @throws TypeError on a public method, or where no guard is installed
 */
export function principalOf(call: AnyCall): Principal {
  const principal = stateOf(call)?.principal;
  if (principal === undefined) throw new TypeError('this call has no principal: its method is public');
  return principal;
}

/**
 * For how many milliseconds the caller may still be relied on. Ask it last before something that
 * cannot be undone, and let the transaction that does it time out after that long.
 *
 * @throws ServiceError with the reason, when the caller was revoked, has expired, or the revocation
 *   list of this process is stale
 */
export function stillAllowed(call: AnyCall): number {
  return guardedState(call).stillAllowed();
}

/** Aborted as soon as the call has ended, was cancelled, or was cut. */
export function signalOf(call: AnyCall): AbortSignal {
  return guardedState(call).signal;
}

/**
 * The verified certificate of the connection under a call, by the SHA-256 of its DER in base64url; undefined when the
 * peer has shown none. What an issuer binds tokens to (RFC 8705 §3.1).
 */
export function certificateThumbprintOf(call: AnyCall): string | undefined {
  return guardedState(call).certificateThumbprint;
}

/** The token's text, for exchanging it; never to be sent anywhere else. */
export function bearerOf(call: AnyCall): string {
  const bearer = guardedState(call).bearer;
  if (bearer === undefined) throw new TypeError('this call has no token: its method is public');
  return bearer;
}

function guardedState(call: AnyCall): CallState {
  const state = stateOf(call);
  if (state === undefined) throw new TypeError('no guard saw this call: install its interceptor');
  return state;
}
