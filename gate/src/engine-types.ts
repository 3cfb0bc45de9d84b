/** What the gate uses of the engine's types. */

/** A status, ready for the wire: what the guard would send, byte for byte. */
export interface ReadyStatus {
  /** The code of gRPC. */
  readonly code: number;
  /** `ErrorInfo.reason`. */
  readonly reason: string;
  readonly message: string;
  /** `grpc-status`, `grpc-message` (percent-encoded), `grpc-status-details-bin` (base64), in the order of grpc-js. */
  readonly headers: readonly (readonly [name: string, value: string])[];
}
