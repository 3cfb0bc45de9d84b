/** A decision in the form in which a wire receives it: what a gate needs to know of the guard. */

import type { GuardErrorCode } from '../errors.js';
import type { Principal } from '../token/principal.js';
import type { ReadyStatus } from '../wire/ready-status.js';
import type { LimitName } from './guard-limits.js';

/** What is known about a caller from its connection. One object may serve all calls of a connection. */
export interface EngineCaller {
  /** The peer's address and port, such as `192.0.2.1:4711`; of a Unix socket any name. */
  readonly peer: string;
  /** The peer's IP address; empty when it has none, as the peers of a Unix socket. */
  readonly address: string;
  /** Whether the connection is encrypted, or stays on this machine. Ask the socket, never what the caller sends. */
  readonly isPrivate: boolean;
  /**
   * The peer's verified TLS certificate, as the SHA-256 of its DER in base64url (RFC 8705 §3.1); undefined when it showed
   * none, or one that was not verified.
   */
  readonly certificateThumbprint: string | undefined;
  /** Asks the peer to open a new connection (GOAWAY). */
  retireConnection(): void;
}

/** Whether a method has streams of messages. */
export interface MethodKind {
  readonly requestStream: boolean;
  readonly responseStream: boolean;
}

/** What the engine does to a call in progress. */
export interface CallHandler {
  /** The call must end now, with this status. Called once at most; the call holds nothing any longer. */
  cut(status: ReadyStatus): void;
}

/**
 * A call that may begin. It counts for the limits and can be cut until {@link EngineCall.unlink}, which must be called in
 * every case, also when the call never began.
 */
export interface EngineCall {
  /** The verified caller; undefined on a public method, or where the engine only observes and found no valid token. */
  readonly principal: Principal | undefined;
  /** The text of the access token; undefined where `principal` is. */
  readonly token: string | undefined;
  /** Whether the method has streams; undefined when no schema says so: such a call counts as a stream in both directions. */
  readonly method: MethodKind | undefined;
  /**
   * Why the call must not go on; undefined when it may. Ask it before every message, in either direction: it reads two
   * clocks. Whoever receives a status ends the call; it is not cut as well.
   */
  denial(): ReadyStatus | undefined;
  /** From now on `cut` is called, synchronously, when the call must end. Called at once when it must already. */
  link(handler: CallHandler): void;
  /** The call has ended. May be called twice. */
  unlink(): void;
  /** A message of a stream of requests has arrived. Otherwise a public call ends after `publicIdleMs`. */
  requestActive(): void;
  /** The request is complete. Otherwise a call of a single request ends after `requestMs`. */
  requestEnded(): void;
  /**
   * The only response is on its way, after a last {@link denial}: the call is not cut any more. A call that revokes its own
   * token is not cut between its response and its status. Without effect where the response is a stream.
   */
  answered(): void;
  /**
   * A message of the response waits because the caller leaves no room for it (flow control). Unless {@link EngineCall.sent}
   * follows, the call ends after `responseMs`, or when it has to make room for others. May be called again.
   */
  sending(): void;
  /** The message has passed, or the caller leaves room again. */
  sent(): void;
  /** Ends the call because its wire found a limit exceeded, and counts it. The call is not cut as well. */
  exceeded(limit: LimitName): ReadyStatus;
}

/** The caller of an admitted call. */
export interface VerifiedCaller {
  readonly principal: Principal;
  readonly token: string;
}

/** What a call that goes on may send. */
interface RequestLimit {
  /** Maximum size of a request message, in bytes. */
  readonly requestBytesMax: number;
}

/** The decision on a call. */
export type Decision =
  /** The method needs no token. Credentials were not looked at. */
  | ({ readonly kind: 'public'; readonly call: EngineCall } & RequestLimit)
  /** The caller may call the method: `principal` and `token` are those of a verified token. */
  | ({ readonly kind: 'admitted'; readonly call: EngineCall & VerifiedCaller } & RequestLimit)
  /** In mode `observe`: the call goes on, though it would be refused for this reason. Its caller may be anyone. */
  | ({ readonly kind: 'observed'; readonly call: EngineCall; readonly reason: GuardErrorCode } & RequestLimit)
  | { readonly kind: 'refused'; readonly status: ReadyStatus };
