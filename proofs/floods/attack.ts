/** The tools of a flood: paced requests, connections that stay open, and counts of what came back. */

import { type ClientHttp2Session, type ClientHttp2Stream, connect as connectHttp2 } from 'node:http2';
import { connect as connectTcp, type Socket } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import { status } from '@grpc/grpc-js';
import { encodeField } from '../shared/hpack.js';
import { PREFACE } from '../shared/http2-frames.js';
import { createRandom, type Random } from '../shared/random.js';
import { type Answer, createPeer, EMPTY_MESSAGE, headersOf, messageOf, type Peer } from '../shared/wire.js';
import type { FloodInput, Tally } from './flood-input.js';

const PACE_INTERVAL_MS = 5;
/** The length of what precedes a message: a flag and the length. */
const PREFIX_BYTES = 5;

/** A request of a flood. */
interface Call {
  /** The address of the service. */
  readonly to: string;
  readonly path: string;
  readonly message?: Uint8Array;
  readonly token?: string;
  /** The local address to send from. */
  readonly from?: string;
  readonly metadata?: readonly (readonly [name: string, value: string])[];
}

/** How fast and how often something is repeated. */
interface Pace {
  readonly perSecond: number;
  /** Repetitions that may be unfinished at one time. */
  readonly atOnce: number;
  /** Repetitions in all. */
  readonly most: number;
}

/** One flood under way. */
export class Attack {
  readonly input: FloodInput;
  readonly random: Random;
  readonly #endsAtMs: number;
  readonly #counts = new Map<string, number>();
  readonly #peers = new Map<string, Peer>();

  constructor(input: FloodInput) {
    this.input = input;
    this.random = createRandom(input.seed);
    this.#endsAtMs = performance.now() + input.seconds * 1_000;
  }

  /** Whether the time of the flood has run out. */
  get over(): boolean {
    return performance.now() >= this.#endsAtMs;
  }

  get tally(): Tally {
    return Object.fromEntries([...this.#counts].sort(([one], [other]) => one.localeCompare(other)));
  }

  count(kind: string, by = 1): void {
    this.#counts.set(kind, (this.#counts.get(kind) ?? 0) + by);
  }

  /** The gRPC addresses of all services. */
  get everywhere(): readonly string[] {
    return this.guarded.map(({ to }) => to);
  }

  /** A method of every service that a customer may call. */
  get guarded(): readonly { readonly to: string; readonly path: string }[] {
    const { auth, inventory, payment } = this.input.addresses;
    return [
      { to: auth, path: '/auth.v1.AuthService/ListSessions' },
      ...inventory.map((to) => ({ to, path: '/inventory.v1.InventoryService/ListItems' })),
      { to: payment, path: '/payment.v1.PaymentService/ListPayments' },
    ];
  }

  /** One of many addresses of strangers, each in a network (/24) of its own. Linux accepts all of 127.0.0.0/8. */
  strange(index: number): string {
    return `127.${64 + (Math.floor(index / 250) % 64)}.${1 + (index % 250)}.7`;
  }

  /** Sends a unary request and counts how it ended. */
  async send({ to, path, message, token, from, metadata = [] }: Call): Promise<Answer> {
    const key = `${to} ${from}`;
    const peer = this.#peers.get(key) ?? createPeer(to, from);
    this.#peers.set(key, peer);
    const fields = [
      ...(token === undefined ? [] : ([['authorization', `Bearer ${token}`]] as const)),
      ...metadata,
    ];
    const block = Buffer.concat([
      headersOf(path),
      ...fields.map(([name, value]) => encodeField(name, value)),
    ]);
    this.count('sent');
    const answer = await peer.send({
      block,
      body: message === undefined ? EMPTY_MESSAGE : messageOf(message),
    });
    this.count(answer.kind === 'answered' ? (status[answer.status] ?? 'no status') : answer.kind);
    return answer;
  }

  /** Repeats a step, paced and bounded, until the time is over. What is unfinished then is left alone. */
  async repeat({ perSecond, atOnce, most }: Pace, step: (index: number) => unknown): Promise<void> {
    const startedMs = performance.now();
    let [index, open] = [0, 0];
    while (!this.over && index < most) {
      const due = Math.min(most, 1 + ((performance.now() - startedMs) / 1_000) * perSecond);
      for (; index < due && open < atOnce; index += 1) {
        open += 1;
        Promise.resolve(step(index))
          .catch(() => this.count('failed'))
          .finally(() => {
            open -= 1;
          });
      }
      await sleep(PACE_INTERVAL_MS);
    }
  }

  /** Waits until the time of the flood is over. */
  async hold(): Promise<void> {
    await sleep(Math.max(0, this.#endsAtMs - performance.now()));
  }

  /**
   * Opens an HTTP/2 connection that keeps to the protocol and to flow control.
   *
   * @param windowBytes - how many bytes of each response the server may send before the client has read some
   */
  connect(to: string, from?: string, windowBytes?: number): ClientHttp2Session {
    const session = connectHttp2(`http://${to}`, {
      createConnection: () => this.#socket(to, from),
      ...(windowBytes !== undefined && { settings: { initialWindowSize: windowBytes } }),
    });
    session.on('error', () => this.count('connection failed'));
    session.on('goaway', () => this.count('connection refused'));
    session.on('close', () => this.count('connection closed'));
    this.count('connections');
    return session;
  }

  /** Opens a stream without ending it, and counts how it ended. */
  open(
    session: ClientHttp2Session,
    path: string,
    headers: Readonly<Record<string, string>> = {},
  ): ClientHttp2Stream | undefined {
    if (session.closed || session.destroyed) return undefined;
    const stream = session.request(
      {
        ':method': 'POST',
        ':path': path,
        te: 'trailers',
        'content-type': 'application/grpc',
        ...headers,
      },
      { endStream: false },
    );
    this.count('streams');
    stream.on('error', () => this.count('stream reset'));
    stream.on('trailers', ({ 'grpc-status': code }) => this.count(status[Number(code)] ?? 'no status'));
    stream.on('response', ({ 'grpc-status': code }) => {
      if (code !== undefined) this.count(status[Number(code)] ?? 'no status');
    });
    stream.resume();
    return stream;
  }

  /** Sends a unary request over a connection, and returns the message of the response; `undefined` without one. */
  async call(
    session: ClientHttp2Session,
    path: string,
    message: Uint8Array,
    token?: string,
  ): Promise<Buffer | undefined> {
    const headers = token === undefined ? undefined : { authorization: `Bearer ${token}` };
    const stream = this.open(session, path, headers);
    if (stream === undefined) return undefined;
    const parts: Buffer[] = [];
    stream.on('data', (part: Buffer) => void parts.push(part));
    stream.end(messageOf(message));
    await new Promise<void>((resolve) => stream.once('close', resolve));
    const bytes = Buffer.concat(parts);
    return bytes.length < PREFIX_BYTES ? undefined : bytes.subarray(PREFIX_BYTES);
  }

  /** Opens a connection for frames of any kind. */
  openRaw(to: string, from?: string): RawConnection {
    this.count('connections');
    return new RawConnection(this.#socket(to, from), () => this.count('connection closed'));
  }

  /** Opens a TCP connection and sends a text; what comes back is read, or left in the buffers. */
  openText(to: string, text: string, options: { from?: string; read: boolean }): Socket {
    const socket = this.#socket(to, options.from);
    this.count('connections');
    socket.on('error', () => this.count('connection failed'));
    socket.on('close', () => this.count('connection closed'));
    if (options.read) socket.resume();
    else socket.pause();
    socket.write(text);
    return socket;
  }

  #socket(to: string, from: string | undefined): Socket {
    const at = to.lastIndexOf(':');
    return connectTcp({
      host: to.slice(0, at),
      port: Number(to.slice(at + 1)),
      noDelay: true,
      ...(from !== undefined && { localAddress: from }),
    });
  }
}

/** A connection on which any frame can be sent; what comes back is discarded. */
export class RawConnection {
  readonly #socket: Socket;
  #open = true;

  constructor(socket: Socket, onClose: () => void) {
    this.#socket = socket;
    socket.resume();
    socket.on('error', () => undefined);
    socket.on('close', () => {
      this.#open = false;
      onClose();
    });
    socket.write(PREFACE);
  }

  get isOpen(): boolean {
    return this.#open;
  }

  /** Sends frames; resolves when the kernel has taken them, or when the connection is closed. */
  async write(...frames: readonly Buffer[]): Promise<void> {
    if (!this.#open) return;
    await new Promise<void>((resolve) => {
      this.#socket.once('close', resolve);
      this.#socket.write(Buffer.concat(frames), () => {
        this.#socket.off('close', resolve);
        resolve();
      });
    });
  }

  close(): void {
    this.#socket.destroy();
  }
}
