/** What the relay asks about each call, and what it tells about calls in progress. */

import { FRAME_BYTES_DEFAULT } from '../http2/frames.js';
import type { RequestHead } from '../http2/request-head.js';
import { PREFIX_BYTES } from './message-meter.js';

/** A header: its name in lower case, and its value. */
export type Header = readonly [name: string, value: string];

/** A status that ends a call, ready to be sent. */
export interface RelayStatus {
  /** The trailers after a response has begun. */
  readonly headers: readonly Header[];
  /** The headers of a response that has a status only, `:status` first. */
  readonly trailersOnly: readonly Header[];
}

/** A call that may begin. The relay calls `unlink` in every case. */
export interface RelayCall {
  /** Whether the method has streams; undefined when unknown: such a call counts as a stream in both directions. */
  readonly method: { readonly requestStream: boolean; readonly responseStream: boolean } | undefined;
  /** Why the call must not go on; undefined when it may. Asked before every message, in either direction. */
  denial(): RelayStatus | undefined;
  /** From now on `cut` may be called, once, when the call must end. */
  link(handler: CutHandler): void;
  /** The call has ended. */
  unlink(): void;
  /** A part of a stream of requests has arrived. */
  requestActive(): void;
  /** The request is complete. */
  requestEnded(): void;
  /** The only response has passed: the call is not cut any more. */
  answered(): void;
  /** A message of the response waits because the client leaves no room for it. May be called again. */
  sending(): void;
  /** The message has passed, or the client leaves room again. */
  sent(): void;
  /** The call exceeds a limit. @returns the status with which it ends */
  exceeded(limit: 'request_bytes'): RelayStatus;
}

/** What can end a call. */
export interface CutHandler {
  cut(status: RelayStatus): void;
}

/** Maximum size of a message that the gate sends of its own, in bytes: with its prefix it fits into one frame of any client. */
export const OWN_MESSAGE_BYTES_MAX = FRAME_BYTES_DEFAULT - PREFIX_BYTES;

/** A method that the gate answers in the server's place. */
export interface OwnMethod {
  /**
   * Receives the request, a message without its prefix.
   *
   * @returns what is to be called when the call has ended, in any way
   */
  open(request: Buffer, responder: OwnResponder): () => void;
}

/** Answers a call. Both do nothing once the call has ended. */
export interface OwnResponder {
  /** Sends a message of {@link OWN_MESSAGE_BYTES_MAX}. It replaces one for which the client had no room: only the latest counts. */
  send(message: Buffer): void;
  /** Ends the call after what was sent. */
  end(status: RelayStatus): void;
}

/** The decision on a call. */
export type Verdict<Call> =
  | {
      readonly kind: 'public' | 'admitted' | 'observed';
      readonly call: Call;
      /** Maximum size of a request message, in bytes. */
      readonly requestBytesMax: number;
      /** The gate answers the call itself, if it is one of gRPC: the server receives nothing of it. */
      readonly own?: OwnMethod | undefined;
    }
  | { readonly kind: 'refused'; readonly status: RelayStatus };

/** A connected client, as the judge sees it. One object serves all calls of a connection. */
export interface RelayCaller {
  /** The peer's address and port; of a Unix socket any name. */
  readonly peer: string;
  /** The peer's IP address; empty when it has none. */
  readonly address: string;
  /** Whether the connection is encrypted, or stays on this machine. */
  readonly isPrivate: boolean;
  /** SHA-256 of the peer's verified certificate, in base64url; undefined when there is none. */
  readonly certificateThumbprint: string | undefined;
  /** Asks the peer to open a new connection (GOAWAY). */
  retireConnection(): void;
}

/** A response to a caller that speaks something else than gRPC. */
export interface ForeignResponse {
  /** The HTTP status. */
  readonly status: number;
  /** The HTTP status without the body, where that is another one. */
  readonly bareStatus?: number;
  readonly headers: readonly Header[];
  /** Left out, with `content-length`, when the caller's flow control has no room for it. */
  readonly body: Buffer;
}

/** Decides calls. */
export interface Judge<Call extends RelayCall = RelayCall> {
  /**
   * Decides a call: its exact path, and every `authorization` value that came with it. Called once for each request that
   * is well-formed; nothing of a request reaches the server before.
   */
  judge(
    path: string,
    authorizations: readonly string[],
    caller: RelayCaller,
  ): Verdict<Call> | Promise<Verdict<Call>>;
  /**
   * Headers about the caller for the server. Names must be in lower case. While the same array is returned, its encoded form
   * is reused.
   */
  identityHeaders?(call: Call, head: RequestHead): readonly Header[] | undefined;
  /** The response to a refused caller that does not speak gRPC; undefined for the response of gRPC. */
  foreignResponse?(head: RequestHead, status: RelayStatus): ForeignResponse | undefined;
}
