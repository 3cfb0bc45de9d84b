/** Ten thousand streams through one gate: what one of them holds, and the time in which all are cut. */

import { setTimeout as sleep } from 'node:timers/promises';
import { median } from '../shared/statistics.js';
import { STREAM_PATH, UNARY_PATH } from './echo.js';
import type { Deployment, GateProcess } from './gate-deployment.js';
import type { LoadCommands } from './load-process.js';
import type { BenchContext } from './section.js';
import { MESSAGE } from './side-by-side.js';
import { startWorker, type Worker } from './worker.js';

const CONNECTIONS = 20;
/** The names of what the load generator prepares. */
const STREAMS = 'streams';
const FIRST = 'first calls';
const SETTLE_MS = 300;

/** What many streams cost. */
export interface CrowdFigures {
  /** Memory of the gate for one stream, in bytes: its heap and its buffers, after a collection of garbage. */
  readonly bytes: number;
  /** By how much the process grew for each stream when they were opened for the first time, in bytes. */
  readonly residentBytes: number;
  /** Milliseconds from the return of Revoke to the end of the last stream at the clients, for each time. */
  readonly cutMs: readonly number[];
}

interface Crowd {
  readonly deployment: Deployment;
  readonly gate: GateProcess;
  readonly streams: number;
}

/** Opens the streams of one session and revokes it, several times. */
export async function measureCrowd(
  context: BenchContext,
  crowd: Crowd & { readonly times: number },
): Promise<CrowdFigures> {
  const load = startWorker<LoadCommands>({ program: 'load-process', core: context.cores.load });
  try {
    const all: Awaited<ReturnType<typeof cutOnce>>[] = [];
    for (let time = 0; time <= crowd.times; time += 1) {
      context.signal.throwIfAborted();
      context.progress(`cutting ${crowd.streams.toLocaleString('en-US')} streams: ${time} of ${crowd.times}`);
      all.push(await cutOnce(load, crowd));
    }
    // The first time warms V8 up, and makes the process as large as it gets.
    const [first, ...others] = all;
    return {
      bytes: median(others.map(({ bytes }) => bytes)),
      residentBytes: first?.residentBytes ?? Number.NaN,
      cutMs: others.map(({ cutMs }) => cutMs),
    };
  } finally {
    await load.stop();
  }
}

async function cutOnce(load: Worker<LoadCommands>, { deployment, gate, streams }: Crowd) {
  const session = await deployment.logIn();
  const message = Uint8Array.from(MESSAGE);
  const tokens = [session.token];
  await load.call('prepare', { name: STREAMS, path: STREAM_PATH, tokens, message });
  // The first call of each connection is unary, so that it ends.
  await load.call('prepare', { name: FIRST, path: UNARY_PATH, tokens, message });
  await load.call('open', { name: STREAMS, port: gate.port, calls: FIRST, connections: CONNECTIONS });
  const before = await gate.probe.call('memory');
  await load.call('openStreams', { connections: STREAMS, calls: STREAMS, count: streams });
  const after = await gate.probe.call('memory');
  const cutsBefore = await gate.cuts();
  const returnedMs = await deployment.revoke(session);
  const endedMs = await load.call('untilEnded', STREAMS);
  const cuts = (await gate.cuts()) - cutsBefore;
  if (cuts !== streams) throw new Error(`the gate has cut ${cuts} of ${streams} streams`);
  await load.call('close', STREAMS);
  await load.call('close', FIRST);
  await sleep(SETTLE_MS);
  return {
    bytes: (after.heapBytes - before.heapBytes) / streams,
    residentBytes: (after.residentBytes - before.residentBytes) / streams,
    cutMs: endedMs - (performance.timeOrigin + returnedMs),
  };
}
