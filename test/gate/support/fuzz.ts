/** Mutated connections for the relay, without sockets: fast, and the same for the same seed. */

import { Duplex } from 'node:stream';
import { ConnectionFault } from '../../../gate/src/http2/errors.js';
import { FrameReader } from '../../../gate/src/http2/frame-reader.js';
import { HpackDecoder } from '../../../gate/src/http2/hpack-decoder.js';
import { Output } from '../../../gate/src/http2/output.js';
import { Calls } from '../../../gate/src/relay/calls.js';
import { ClientFrames } from '../../../gate/src/relay/client-frames.js';
import { ClientWindows } from '../../../gate/src/relay/client-windows.js';
import { RELAY_LIMITS } from '../../../gate/src/relay/limits.js';
import { type ConnectionPort, createBudgets } from '../../../gate/src/relay/port.js';
import { ServerFrames } from '../../../gate/src/relay/server-frames.js';
import { RELAY_STATUSES } from '../../../gate/src/relay/statuses.js';
import { StreamTable } from '../../../gate/src/relay/stream.js';
import { block, indexed } from './hpack-writer.js';
import { frame, requestFields, uint32 } from './raw-peer.js';
import { TestJudge } from './relay-kit.js';

/** A generator of the same numbers for the same seed (mulberry32). */
function createRandom(seed: number): (below: number) => number {
  let state = seed >>> 0;
  return (below) => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return Math.floor((((mixed ^ (mixed >>> 14)) >>> 0) / 0x1_0000_0000) * below);
  };
}

class Sink extends Duplex {
  bytes: Buffer[] = [];

  override _read(): void {}

  override _write(chunk: Buffer, _encoding: BufferEncoding, done: () => void): void {
    this.bytes.push(Buffer.from(chunk));
    done();
  }
}

/** A relay connection whose ends are in memory. */
class FuzzedConnection {
  readonly judge = new TestJudge();
  readonly client = new Sink();
  readonly server = new Sink();
  readonly errors: unknown[] = [];
  readonly fromClient: FrameReader;
  readonly fromServer: FrameReader;
  /** A peer was at fault: nothing more is read. */
  isEnded = false;
  readonly #port: ConnectionPort;

  constructor() {
    const { judge } = this;
    const clock = { wallMs: () => 0, monotonicMs: () => 0 };
    const budgets = createBudgets(RELAY_LIMITS, 0);
    const { errors } = this;
    const port: ConnectionPort = {
      toClient: new Output(this.client),
      toServer: new Output(this.server),
      judge,
      caller: {
        peer: 'fuzz',
        address: '',
        isPrivate: true,
        certificateThumbprint: undefined,
        retireConnection: () => {},
      },
      limits: RELAY_LIMITS,
      budgets,
      statuses: RELAY_STATUSES,
      forwardsToken: false,
      ownSettingsUnacknowledged: 1,
      serverSettingsUnacknowledged: 0,
      heldSettingsAcks: 0,
      clientPings: 0,
      serverPings: 0,
      windows: new ClientWindows(),
      owesTableUpdate: false,
      lastAcceptedId: 0x7fff_ffff,
      wallMs: () => 0,
      spend: (budget) => {
        if (!budget.take(clock)) throw new ConnectionFault(0xb, 'flood');
      },
      scheduleFlush: () => {},
      ownPingAnswered: () => {},
      event: (event, detail) => {
        if (event === 'internal_error') errors.push(detail);
      },
    };
    this.#port = port;
    const streams = new StreamTable(RELAY_LIMITS.streams);
    const calls = new Calls(port, streams);
    const clientFrames = new ClientFrames(port, calls, streams);
    clientFrames.isStopped = false;
    const serverFrames = new ServerFrames(port, calls, streams, { serverLeaves: () => {} });
    this.fromClient = new FrameReader(clientFrames, RELAY_LIMITS.frameBytes);
    this.fromServer = new FrameReader(serverFrames, RELAY_LIMITS.frameBytes);
  }

  /** @returns what it threw that is no fault of a peer */
  push(reader: FrameReader, bytes: Buffer): unknown {
    if (this.isEnded) return undefined;
    try {
      reader.push(bytes);
    } catch (error) {
      if (!(error instanceof ConnectionFault)) return error;
      this.isEnded = true;
    }
    this.#port.toClient.flush();
    this.#port.toServer?.flush();
    return this.errors[0];
  }

  /** @returns what reached the server and must not; undefined when nothing did */
  violation(): string | undefined {
    const bytes = Buffer.concat(this.server.bytes);
    const decoder = new HpackDecoder({ tableBytesMax: 0, listBytesMax: 1 << 20, fieldsMax: 10_000 });
    const admissible = this.judge.judged.filter(
      ({ path, authorizations }) =>
        path.startsWith('/public') || (authorizations.length === 1 && authorizations[0] === 'Bearer good'),
    );
    const paths = new Set(admissible.map(({ path }) => path));
    const opened = new Set<number>();
    for (let at = 0; at < bytes.length; ) {
      const length = bytes.readUIntBE(at, 3);
      const type = bytes[at + 3] ?? 0;
      const flags = bytes[at + 4] ?? 0;
      const id = bytes.readUInt32BE(at + 5);
      if (at + 9 + length > bytes.length) return 'an incomplete frame';
      if (type === 1) {
        const from = at + 9 + (flags & 8 ? 1 : 0) + (flags & 0x20 ? 5 : 0);
        const to = at + 9 + length - (flags & 8 ? (bytes[at + 9] ?? 0) : 0);
        if ((flags & 4) === 0) return undefined;
        const fields = decoder.decode(bytes, from, to);
        if (fields === undefined || fields.some(({ isValid }) => !isValid)) return 'an invalid field';
        if (fields.some(({ name }) => name === 'authorization' || name.startsWith('x-portcullis-')))
          return 'a stripped field';
        const sent = fields.filter(({ name }) => name === ':path').map(({ value }) => value);
        if (opened.has(id) ? sent.length > 0 : sent.length !== 1) return 'a wrong number of paths';
        if (sent[0] !== undefined && !paths.has(sent[0])) return `a path that was not admitted: ${sent[0]}`;
        opened.add(id);
      } else if ((type === 0 || type === 3 || type === 2) && !opened.has(id)) {
        return `a frame of type ${type} on a stream that was not opened`;
      } else if (type === 5) {
        return 'a push';
      }
      at += 9 + length;
    }
    return opened.size > this.judge.admitted ? 'more streams than were admitted' : undefined;
  }
}

const SETTINGS_FRAME = frame(4, 0, 0, Buffer.from('000300000064000400100000', 'hex'));

/** Frames of honest clients, and of almost honest ones. */
const CLIENT_FRAMES: readonly Buffer[] = [
  SETTINGS_FRAME,
  frame(4, 1, 0),
  frame(1, 4, 1, block(...requestFields('/test.Echo/Bidi'))),
  frame(1, 5, 1, block(...requestFields('/test.Echo/Unary'))),
  frame(1, 4, 1, block(...requestFields('/secret.Service/Method', 'Bearer bad'))),
  frame(
    1,
    4,
    1,
    block(...requestFields('/public.Service/Method', undefined), ['x-portcullis-subject', 'mallory']),
  ),
  frame(
    1,
    4,
    1,
    Buffer.concat([
      block(...requestFields('/test.Echo/Bidi')),
      indexed('x-a', 'b'),
      indexed(':path', '/secret'),
    ]),
  ),
  frame(
    1,
    0x2c,
    1,
    Buffer.concat([
      Buffer.of(2, 0, 0, 0, 0, 15),
      block(...requestFields('/test.Echo/Bidi')),
      Buffer.alloc(2),
    ]),
  ),
  frame(1, 5, 1, Buffer.concat([block(...requestFields('/test.Echo/Bidi')), Buffer.of(0xbe, 0xbf)])),
  frame(1, 1, 1, block(...requestFields('/test.Echo/Bidi')).subarray(0, 20)),
  frame(9, 4, 1, block(...requestFields('/test.Echo/Bidi')).subarray(20)),
  frame(0, 0, 1, Buffer.from('00000000037a7a7a', 'hex')),
  frame(0, 9, 1, Buffer.from('0200000000000000', 'hex')),
  frame(0, 1, 1),
  frame(3, 0, 1, uint32(8)),
  frame(8, 0, 0, uint32(1000)),
  frame(8, 0, 1, uint32(1000)),
  frame(6, 0, 0, Buffer.alloc(8, 1)),
  frame(2, 0, 1, Buffer.of(0, 0, 0, 3, 15)),
  frame(0x10, 0, 0, Buffer.concat([uint32(1), Buffer.from('u=1')])),
  frame(1, 5, 1, block(['x-trailer', 'yes'])),
  frame(7, 0, 0, Buffer.alloc(8)),
];

const SERVER_FRAMES: readonly Buffer[] = [
  SETTINGS_FRAME,
  frame(4, 1, 0),
  frame(
    1,
    4,
    1,
    Buffer.concat([Buffer.of(0x20), block([':status', '200'], ['content-type', 'application/grpc'])]),
  ),
  frame(1, 5, 1, block([':status', '200'], ['grpc-status', '5'])),
  frame(1, 5, 1, block(['grpc-status', '0'])),
  frame(1, 4, 1, block([':status', '103'])),
  frame(0, 0, 1, Buffer.from('00000000037a7a7a', 'hex')),
  frame(0, 8, 1, Buffer.from('0200000000000000', 'hex')),
  frame(3, 0, 1, uint32(8)),
  frame(8, 0, 0, uint32(1000)),
  frame(8, 0, 1, uint32(1000)),
  frame(6, 0, 0, Buffer.alloc(8, 1)),
  frame(1, 0, 1, Buffer.of(0x88)),
  frame(9, 4, 1, block(['a', 'b'])),
  frame(7, 0, 0, Buffer.concat([uint32(0x7fff_ffff), uint32(0)])),
];

/** What a campaign has done. */
interface Campaign {
  readonly frames: number;
  readonly connections: number;
  /** Calls that were admitted, so that it is known that something was tried. */
  readonly admitted: number;
}

/**
 * Sends mutated frames of both sides through relay connections, each with a limited number of frames.
 *
 * @throws Error naming the seed and the connection when something is not as it must be
 */
export function fuzz(seed: number, framesMax: number): Campaign {
  const random = createRandom(seed);
  let frames = 0;
  let connections = 0;
  let admitted = 0;
  while (frames < framesMax) {
    const connection = new FuzzedConnection();
    connection.push(connection.fromClient, SETTINGS_FRAME);
    connection.push(connection.fromServer, SETTINGS_FRAME);
    connections += 1;
    const length = 1 + random(24);
    let id = 1;
    let error: unknown;
    for (let index = 0; index < length && error === undefined && !connection.isEnded; index++) {
      const isServer = random(4) === 0;
      const source = isServer ? SERVER_FRAMES : CLIENT_FRAMES;
      let bytes: Buffer = Buffer.from(source[random(source.length)] ?? SETTINGS_FRAME);
      if (bytes.readUInt32BE(5) === 1) {
        // Half of the requests open the next stream; the rest is for one of those before.
        if (bytes[3] === 1 && random(2) === 0) id += 2;
        bytes.writeUInt32BE(Math.max(1, id - 2 * random(3)), 5);
      }
      if (random(3) === 0) bytes = mutate(bytes, random);
      const cut = random(8) === 0 ? random(bytes.length + 1) : bytes.length;
      const reader = isServer ? connection.fromServer : connection.fromClient;
      error = connection.push(reader, bytes.subarray(0, cut)) ?? connection.push(reader, bytes.subarray(cut));
      if (random(40) === 0) connection.judge.revoke();
      frames += 1;
    }
    const violation = error ?? connection.violation();
    if (violation !== undefined) {
      throw new Error(`seed ${seed}, connection ${connections}: ${String(violation)}`, { cause: error });
    }
    admitted += connection.judge.admitted;
  }
  return { frames, connections, admitted };
}

function mutate(bytes: Buffer, random: (below: number) => number): Buffer {
  let mutated: Buffer = Buffer.from(bytes);
  for (let left = 1 + random(3); left > 0; left--) {
    const at = random(mutated.length);
    switch (random(6)) {
      case 0:
        mutated[at] = random(256);
        break;
      case 1:
        mutated[at] = (mutated[at] ?? 0) ^ (1 << random(8));
        break;
      case 2:
        mutated = Buffer.concat([mutated.subarray(0, at), Buffer.of(random(256)), mutated.subarray(at)]);
        break;
      case 3:
        mutated = Buffer.concat([mutated.subarray(0, at), mutated.subarray(at + 1)]);
        break;
      case 4:
        mutated = Buffer.concat([mutated, mutated.subarray(at)]);
        break;
      default:
        // Keeps the frame whole, so that mutations of blocks reach the decoder.
        if (mutated.length > 9) {
          const payload = Buffer.concat([mutated.subarray(9), Buffer.of(random(256))]);
          mutated = Buffer.concat([mutated.subarray(0, 9), payload]);
          mutated.writeUIntBE(payload.length, 0, 3);
        }
    }
    if (mutated.length === 0) mutated = Buffer.of(0);
  }
  return mutated;
}

/** Decodes random and mutated header blocks. @throws Error naming the seed when anything but a fault is thrown */
export function fuzzBlocks(seed: number, blocks: number): number {
  const random = createRandom(seed);
  let decoded = 0;
  let decoder = new HpackDecoder({ tableBytesMax: 4096, listBytesMax: 16_384, fieldsMax: 256 });
  for (let index = 0; index < blocks; index++) {
    const source = CLIENT_FRAMES[2 + random(8)] ?? SETTINGS_FRAME;
    const bytes =
      random(4) === 0
        ? Buffer.from(Array.from({ length: random(60) }, () => random(256)))
        : mutate(source.subarray(9), random);
    try {
      decoder.decode(bytes, 0, bytes.length);
      decoded += 1;
    } catch (error) {
      if (!(error instanceof ConnectionFault))
        throw new Error(`seed ${seed}, block ${index}`, { cause: error });
      decoder = new HpackDecoder({ tableBytesMax: 4096, listBytesMax: 16_384, fieldsMax: 256 });
    }
  }
  return decoded;
}
