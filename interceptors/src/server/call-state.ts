/** What the guard knows about a call, and the functions with which a handler reads it. */

import type { Metadata } from '@grpc/grpc-js';
import type { FenceQuery } from '../revocation/fence.js';
import type { Principal } from '../token/principal.js';
import { otherCopies } from '../wire/copies.js';
import { createMetadataSlot } from '../wire/grpc-js-internals.js';

/** Any of grpc-js's four kinds of server calls. */
export interface AnyCall {
  readonly metadata: Metadata;
}

/** What the guard knows about a call. */
export interface CallState {
  /** The full path of the method. */
  readonly path: string;
  /** Undefined on a public method. */
  readonly principal: Principal | undefined;
  /** The text of the access token; undefined on a public method. */
  readonly bearer: string | undefined;
  /** Aborted when the call ends. */
  readonly signal: AbortSignal;
  /** The peer's verified TLS certificate (RFC 8705 §3.1); undefined when it showed none. */
  readonly certificateThumbprint: string | undefined;
  /** For how many milliseconds the caller stays authorized. Throws when it no longer is. */
  stillAllowed(): number;
  /** See {@link passFence}. */
  passFence(query: FenceQuery): Promise<number>;
  /** Logs an error whose cause the caller does not receive. */
  reportFailure(error: unknown): void;
}

const slot = createMetadataSlot<CallState>('portcullis.call');

/** Attaches the state to the metadata that the handler receives as `call.metadata`. */
export function attachState(metadata: Metadata, state: CallState): void {
  slot.set(metadata, state);
}

/** The state of a call; undefined when no guard decided it. */
export function stateOf(call: AnyCall): CallState | undefined {
  return slot.get(call.metadata);
}

/**
 * The verified caller.
 *
 * @throws TypeError on a public method, or where no guard is installed
 */
export function principalOf(call: AnyCall): Principal {
  const { principal } = guardedState(call);
  if (principal === undefined) {
    throw new TypeError('this call has no principal: its method is public, or the guard only observes');
  }
  return principal;
}

/**
 * For how many milliseconds the caller stays authorized. Call it right before an operation that cannot be undone, and
 * let the transaction of that operation time out after the result.
 *
 * @throws ServiceError TOKEN_REVOKED, TOKEN_EXPIRED or REVOCATION_STATE_STALE
 */
export function stillAllowed(call: AnyCall): number {
  return guardedState(call).stillAllowed();
}

/**
 * Passes the fence of a database, inside the transaction of an operation that cannot be undone. Call it last before
 * COMMIT, and let the transaction time out after the result. A transaction that passes is committed before any revocation
 * that it does not know of is reported as FENCED, or it is not committed.
 *
 * @param query - runs a statement in that transaction
 * @returns for how many milliseconds the caller stays authorized
 * @throws ServiceError TOKEN_REVOKED, TOKEN_EXPIRED; REVOCATION_STATE_STALE, also when this instance lags behind the fence;
 *   what `query` throws
 */
export async function passFence(call: AnyCall, query: FenceQuery): Promise<number> {
  return await guardedState(call).passFence(query);
}

/** A signal that is aborted when the call ends, is cancelled by its caller, or is cut by the guard. */
export function signalOf(call: AnyCall): AbortSignal {
  return guardedState(call).signal;
}

/**
 * The peer's verified TLS certificate, as the SHA-256 of its DER in base64url (`x5t#S256`, RFC 8705 §3.1); undefined
 * when the peer showed none.
 */
export function certificateThumbprintOf(call: AnyCall): string | undefined {
  return guardedState(call).certificateThumbprint;
}

/**
 * The text of the access token, to exchange it (RFC 8693). Never send it to another service.
 *
 * @throws TypeError on a public method, or where no guard is installed
 */
export function bearerOf(call: AnyCall): string {
  const { bearer } = guardedState(call);
  if (bearer === undefined) throw new TypeError('this call has no token: its method is public');
  return bearer;
}

function guardedState(call: AnyCall): CallState {
  const state = stateOf(call);
  if (state !== undefined) return state;
  throw new TypeError(
    `no guard decided this call: ${otherCopies() || 'give its interceptor to the server (new Server({ interceptors: [guard.interceptor] }))'}`,
  );
}
