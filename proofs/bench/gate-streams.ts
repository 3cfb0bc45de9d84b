/** Streams through a gate: the time from a revocation to the status at the client, whether it reads or not. */

import { type ClientHttp2Stream, connect } from 'node:http2';
import { setTimeout as sleep } from 'node:timers/promises';
import { Client, credentials, Metadata, type ServiceError, status } from '@grpc/grpc-js';
import { errorOf } from '@portcullis/guard/client';
import { waitUntil } from '../shared/waiting.js';
import { FLOOD_PATH, STREAM_PATH } from './echo.js';
import type { Deployment, GateProcess, Session } from './gate-deployment.js';
import type { BenchContext } from './section.js';
import { MESSAGE } from './side-by-side.js';

const REVOKED = 'TOKEN_REVOKED';
/** The pause between two trials, in milliseconds. */
const REST_MS = 15;
/** Trials that warm V8 up and do not count. */
const WARM_UP_TRIALS = 5;
/** The flow-control window of a new stream of HTTP/2, in bytes (RFC 9113 §6.9.2). */
const WINDOW_BYTES = 65_535;
const STALLED_MS_MAX = 10_000;
const STALLED_POLL_MS = 5;
/** A stream that has not ended after this time fails the section, in milliseconds. */
const END_MS_MAX = 10_000;

/** An open stream. */
interface OpenStream {
  /** Resolves with the moment of the end, on the clock of `performance.now`. @throws Error when it ends otherwise */
  readonly revoked: Promise<number>;
  close(): void;
}

/** What the client of a trial does. */
type Reading = 'reads' | 'does not read';

/**
 * Revokes one session at a time that has one open stream.
 *
 * @returns milliseconds from the return of Revoke to the status at the client; negative when that came first
 */
export async function measureRevocations(
  context: BenchContext,
  options: {
    readonly deployment: Deployment;
    readonly gate: GateProcess;
    readonly reading: Reading;
    readonly trials: number;
  },
): Promise<number[]> {
  const { deployment, gate, reading, trials } = options;
  const times: number[] = [];
  for (let trial = -WARM_UP_TRIALS; trial < trials; trial += 1) {
    context.signal.throwIfAborted();
    context.progress(`revoking a stream whose client ${reading}: ${Math.max(0, trial + 1)} of ${trials}`);
    const session = await deployment.logIn();
    const stream = await (reading === 'reads' ? openRead : openUnread)(gate, session);
    try {
      await sleep(REST_MS);
      const returnedMs = await deployment.revoke(session);
      const endedMs = await within(stream.revoked);
      if (trial >= 0) times.push(endedMs - returnedMs);
    } finally {
      stream.close();
    }
  }
  return times;
}

async function within(ended: Promise<number>): Promise<number> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(new Error('a revoked stream goes on')), END_MS_MAX);
  });
  try {
    return await Promise.race([ended, late]);
  } finally {
    clearTimeout(timer);
  }
}

/** A client of grpc-js that reads what it receives. Resolves after the first message. */
async function openRead({ port }: GateProcess, { token }: Session): Promise<OpenStream> {
  const client = new Client(`127.0.0.1:${port}`, credentials.createInsecure(), {
    'grpc.use_local_subchannel_pool': 1,
  });
  const metadata = new Metadata();
  metadata.set('authorization', `Bearer ${token}`);
  const bytes = (value: Buffer): Buffer => value;
  const stream = client.makeServerStreamRequest(STREAM_PATH, bytes, bytes, MESSAGE, metadata);
  const revoked = new Promise<number>((resolve, reject) => {
    stream.once('error', (error: ServiceError) => {
      const endedMs = performance.now();
      if (errorOf(error).reason === REVOKED) resolve(endedMs);
      else reject(error);
    });
  });
  // It may end while nothing waits for that.
  revoked.catch(() => undefined);
  await Promise.race([new Promise<void>((resolve) => stream.once('data', () => resolve())), revoked]);
  return { revoked, close: () => client.close() };
}

/**
 * A client that reads its socket and leaves what it receives unread, as a program does that is busy with something else.
 * Resolves when no byte of the response may be sent to it any more.
 */
async function openUnread({ port }: GateProcess, { token }: Session): Promise<OpenStream> {
  const session = connect(`http://127.0.0.1:${port}`, { settings: { enablePush: false } });
  session.on('error', () => {});
  const stream = session.request({
    ':method': 'POST',
    ':path': FLOOD_PATH,
    authorization: `Bearer ${token}`,
    'content-type': 'application/grpc',
    te: 'trailers',
  });
  const revoked = statusOf(stream);
  revoked.catch(() => undefined);
  // An empty message, with its prefix.
  stream.end(Buffer.alloc(5));
  await waitUntil(() => isFull(stream), {
    timeoutMs: STALLED_MS_MAX,
    pollMs: STALLED_POLL_MS,
    failure: 'an unread stream does not fill its window',
  });
  return { revoked, close: () => session.destroy() };
}

/** Whether the server may send no byte of DATA any more. */
function isFull({ state: { localWindowSize = WINDOW_BYTES } }: ClientHttp2Stream): boolean {
  return localWindowSize <= 0;
}

/** The status of gRPC at the end of a stream, whose messages are not read. */
function statusOf(stream: ClientHttp2Stream): Promise<number> {
  return new Promise((resolve, reject) => {
    stream.once('error', reject);
    stream.once('trailers', (trailers) => {
      const endedMs = performance.now();
      const details = Buffer.from(String(trailers['grpc-status-details-bin']), 'base64').toString('latin1');
      const isRight = trailers['grpc-status'] === String(status.UNAUTHENTICATED) && details.includes(REVOKED);
      if (isRight) resolve(endedMs);
      else reject(new Error(`an unread stream ended with ${JSON.stringify(trailers)}`));
    });
  });
}
