/** TCP proxies: a link between two processes that can be cut, delayed or made to lose messages. */

import type { AddressInfo, Socket } from 'node:net';
import { connect, createServer } from 'node:net';
import { dropMessages } from './nats-frames.js';

const HOST = '127.0.0.1';
/** The bytes that one direction may hold; beyond them the sender waits. */
const HELD_BYTES_MAX = 4 * 1024 * 1024;

/** The mode of a link. */
export type LinkMode =
  | { readonly kind: 'pass' }
  /** Nothing passes, without FIN or reset; new connections are accepted and lead nowhere. */
  | { readonly kind: 'cut' }
  /** Everything passes with a delay: `thereMs` towards the server, `backMs` from it. */
  | { readonly kind: 'slow'; readonly thereMs: number; readonly backMs: number }
  /** Messages of a NATS server are dropped; everything else passes, so that the connection seems healthy. */
  | { readonly kind: 'mute' };

/** A link to one server. */
export interface Link {
  /** The address that the client connects to. */
  readonly address: string;
  set(mode: LinkMode): void;
  /** Ends all connections with a reset, like a firewall that has lost its state. */
  reset(): void;
  /** Leads new connections to the first of these ports that accepts them. */
  aim(ports: readonly number[]): void;
  close(): Promise<void>;
}

/** Opens a link from a free port of 127.0.0.1 to another port, which need not be open yet. */
export async function openLink(targetPort: number): Promise<Link> {
  let mode: LinkMode = { kind: 'pass' };
  let targets: readonly number[] = [targetPort];
  const pairs = new Set<Pair>();
  const server = createServer((near) => {
    const pair = createPair({
      near,
      targets: () => targets,
      mode: () => mode,
      gone: () => pairs.delete(pair),
    });
    pairs.add(pair);
  });
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject);
    server.listen(0, HOST, resolve);
  });
  const { port } = server.address() as AddressInfo;
  return {
    address: `${HOST}:${port}`,
    set(next) {
      mode = next;
      for (const pair of pairs) pair.modeChanged();
    },
    reset() {
      for (const pair of pairs) pair.destroy();
    },
    aim(next) {
      targets = next;
    },
    async close() {
      const closed = new Promise<void>((resolve) => server.close(() => resolve()));
      for (const pair of pairs) pair.destroy();
      await closed;
    },
  };
}

interface Pair {
  modeChanged(): void;
  destroy(): void;
}

function createPair(options: {
  near: Socket;
  targets: () => readonly number[];
  mode: () => LinkMode;
  gone: () => void;
}): Pair {
  const { near, mode } = options;
  near.setNoDelay(true);
  near.pause();
  let far: Socket | undefined;
  let directions: Direction[] = [];
  const destroy = (): void => {
    near.destroy();
    far?.destroy();
    for (const direction of directions) direction.drop();
    options.gone();
  };
  // A connection made while the link is cut leads nowhere until the link is restored.
  const lead = (): void => {
    if (far !== undefined || mode().kind === 'cut' || near.destroyed) return;
    leadTo(options.targets());
  };
  const leadTo = ([port = 0, ...others]: readonly number[]): void => {
    const socket = connect(port, HOST);
    far = socket;
    socket.setNoDelay(true);
    socket.on('error', () => undefined);
    socket.once('connect', () => {
      directions = [
        createDirection(near, socket, mode, ({ thereMs }) => thereMs, false),
        createDirection(socket, near, mode, ({ backMs }) => backMs, true),
      ];
    });
    socket.on('close', () => {
      if (directions.length === 0 && others.length > 0 && !near.destroyed) leadTo(others);
      else ended();
    });
  };
  // While the link is cut, neither side sees the other close.
  const ended = (): void => {
    if (mode().kind === 'cut') return;
    // Bytes that were already forwarded still arrive.
    near.destroySoon();
    far?.destroySoon();
    for (const direction of directions) direction.drop();
    options.gone();
  };
  near.on('error', () => undefined);
  near.on('close', ended);
  lead();
  return {
    modeChanged() {
      if (mode().kind !== 'cut' && (near.destroyed || far?.destroyed === true)) return ended();
      lead();
      for (const direction of directions) direction.modeChanged();
    },
    destroy,
  };
}

interface Direction {
  modeChanged(): void;
  drop(): void;
}

function createDirection(
  from: Socket,
  to: Socket,
  mode: () => LinkMode,
  delayOf: (slow: Extract<LinkMode, { kind: 'slow' }>) => number,
  isFromServer: boolean,
): Direction {
  const held: { chunk: Buffer; dueMs: number }[] = [];
  const strip = dropMessages();
  let heldBytes = 0;
  let timer: NodeJS.Timeout | undefined;

  const flush = (): void => {
    clearTimeout(timer);
    timer = undefined;
    if (mode().kind === 'cut') return;
    for (let first = held[0]; first !== undefined; first = held[0]) {
      const waitMs = first.dueMs - performance.now();
      if (waitMs > 0) {
        timer = setTimeout(flush, Math.ceil(waitMs));
        return;
      }
      held.shift();
      heldBytes -= first.chunk.byteLength;
      to.write(first.chunk);
    }
    if (!to.writableNeedDrain) from.resume();
  };

  from.on('data', (chunk: Buffer) => {
    const now = mode();
    // Frames are always parsed, because a link can be muted in the middle of one.
    const rest = isFromServer ? strip(chunk, now.kind === 'mute') : chunk;
    const delayMs = now.kind === 'slow' ? delayOf(now) : 0;
    // What came later never overtakes what came earlier.
    const dueMs = Math.max(performance.now() + delayMs, held.at(-1)?.dueMs ?? 0);
    held.push({ chunk: rest, dueMs });
    heldBytes += rest.byteLength;
    if (now.kind === 'cut' || heldBytes > HELD_BYTES_MAX || to.writableNeedDrain) from.pause();
    if (timer === undefined) flush();
  });
  to.on('drain', () => {
    if (mode().kind !== 'cut') from.resume();
  });
  if (mode().kind !== 'cut') from.resume();
  return {
    modeChanged() {
      if (mode().kind === 'cut') from.pause();
      else flush();
    },
    drop() {
      clearTimeout(timer);
      held.length = 0;
    },
  };
}
