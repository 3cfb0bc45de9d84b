/** Error codes of HTTP/2 (RFC 9113 §7), and the fault that ends a connection. */

export const NO_ERROR = 0x0;
export const PROTOCOL_ERROR = 0x1;
export const INTERNAL_ERROR = 0x2;
export const FLOW_CONTROL_ERROR = 0x3;
export const STREAM_CLOSED = 0x5;
export const FRAME_SIZE_ERROR = 0x6;
export const REFUSED_STREAM = 0x7;
export const CANCEL = 0x8;
export const COMPRESSION_ERROR = 0x9;
export const ENHANCE_YOUR_CALM = 0xb;

/** A violation by the peer after which the connection cannot be used: it ends with GOAWAY and this code. */
export class ConnectionFault extends Error {
  override readonly name = 'ConnectionFault';
  /** The error code of the GOAWAY frame. */
  readonly code: number;

  /** @param message a fixed text: it is sent to the peer as debug data, so it must hold nothing of the other side */
  constructor(code: number, message: string) {
    super(message);
    this.code = code;
  }
}

/** What the client has done too often. It is the client's fault wherever it is noticed, also at a frame of the server. */
export class ExcessFault extends ConnectionFault {
  constructor() {
    super(ENHANCE_YOUR_CALM, 'too many frames of one kind');
  }
}
