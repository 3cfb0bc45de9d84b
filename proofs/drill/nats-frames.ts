/** The part of the NATS protocol that is needed to drop messages, and only messages. */

const GREETING = 'INFO ';
const LINE_END = Buffer.from('\r\n');
/** The longest line that can begin a message, in bytes; a longer line is not NATS. */
const LINE_BYTES_MAX = 64 * 1024;

/**
 * Returns a filter for the bytes that a NATS server sends on one connection, in chunks of any size. While `drop`
 * returns true, the filter removes messages (`MSG`, `HMSG`).
 *
 * It does not change the bytes of a connection of another protocol.
 */
export function dropMessages(): (chunk: Buffer, drop: boolean) => Buffer {
  let line = Buffer.alloc(0);
  let payloadLeft = 0;
  let isDropping = false;
  let isNats: boolean | undefined;

  return (chunk, drop) => {
    if (isNats === false) return chunk;
    const kept: Buffer[] = [];
    let rest = chunk;
    while (rest.byteLength > 0) {
      if (payloadLeft > 0) {
        const part = rest.subarray(0, payloadLeft);
        payloadLeft -= part.byteLength;
        rest = rest.subarray(part.byteLength);
        if (!isDropping) kept.push(part);
        continue;
      }
      const before = line.byteLength;
      line = Buffer.concat([line, rest]);
      const end = line.indexOf(LINE_END);
      isNats ??= beginsLikeNats(line);
      if (end === -1 && line.byteLength > LINE_BYTES_MAX) isNats = false;
      if (isNats === false) return Buffer.concat([...kept, line]);
      if (end === -1) return Buffer.concat(kept);
      const whole = line.subarray(0, end + LINE_END.byteLength);
      rest = rest.subarray(whole.byteLength - before);
      line = Buffer.alloc(0);
      const size = messageBytesOf(whole);
      isDropping = size !== undefined && drop;
      if (size !== undefined) payloadLeft = size + LINE_END.byteLength;
      if (!isDropping) kept.push(whole);
    }
    return Buffer.concat(kept);
  };
}

/** Whether these are the first bytes of a NATS server; `undefined` while there are too few. */
function beginsLikeNats(line: Buffer): boolean | undefined {
  const begin = line.toString('latin1', 0, GREETING.length);
  if (!GREETING.startsWith(begin)) return false;
  return begin.length < GREETING.length ? undefined : true;
}

/** Length of the payload that follows this line, in bytes; `undefined` when the line begins no message. */
function messageBytesOf(line: Buffer): number | undefined {
  const [verb, ...words] = line.toString('latin1').trim().split(/\s+/);
  if (verb !== 'MSG' && verb !== 'HMSG') return undefined;
  return Number(words.at(-1));
}
