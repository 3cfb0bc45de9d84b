/** The W3C trace context that a caller sent, so that log lines can be found by the caller's trace id. */

/** The position of a call in its caller's trace. */
export interface TraceContext {
  /** 32 hexadecimal digits. */
  readonly traceId: string;
  /** 16 hexadecimal digits: the caller's span. */
  readonly parentId: string;
}

const TRACEPARENT = /^([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-[0-9a-f]{2}(-.*)?$/;
const TRACEPARENT_CHARACTERS_MAX = 512;

/** Parses a `traceparent` header; undefined when it is not valid (W3C Trace Context §3.2). */
export function parseTraceparent(header: unknown): TraceContext | undefined {
  if (typeof header !== 'string' || header.length > TRACEPARENT_CHARACTERS_MAX) return undefined;
  const [, version, traceId, parentId, rest] = TRACEPARENT.exec(header) ?? [];
  if (version === undefined || traceId === undefined || parentId === undefined) return undefined;
  if (version === 'ff' || (version === '00' && rest !== undefined)) return undefined;
  if (/^0+$/.test(traceId) || /^0+$/.test(parentId)) return undefined;
  return { traceId, parentId };
}
