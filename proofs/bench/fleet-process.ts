/** A process with many instances in it: each has a feed of its own, with its own connections to issuer and broker. */

import { generateKeyPairSync, randomBytes } from 'node:crypto';
import { monitorEventLoopDelay } from 'node:perf_hooks';
import { setTimeout as sleep } from 'node:timers/promises';
import { credentials } from '@grpc/grpc-js';
import { createGuard } from '@portcullis/guard';
import { systemClock } from '@portcullis/guard/clock';
import { createRemoteSource, Feed, FeedRunner } from '@portcullis/guard/internal';
import { waitUntil } from '../shared/waiting.js';
import { BENCH_ISSUER, ID_BYTES } from './issuer.js';
import { answerCommands } from './worker.js';

const POLL_MS = 5;
const HEARD_MS_MAX = 10_000;
const NOBODY = (): void => {};
const SILENT = { info: NOBODY, warn: NOBODY, error: NOBODY };

interface Instance {
  readonly runner: FeedRunner;
  readonly feed: Feed;
}

const instances: Instance[] = [];
let heard = 0;
let lastHeardMs = 0;

const commands = {
  /** Starts a guard with nothing in it. @returns how long it took until it was ready to serve */
  hydrate: async ({
    port,
  }: {
    port: number;
  }): Promise<{ readyMs: number; entries: number; blockedMs: number }> => {
    const { privateKey } = generateKeyPairSync('ed25519');
    globalThis.gc?.();
    const delay = monitorEventLoopDelay({ resolution: 1 });
    delay.enable();
    const startedMs = performance.now();
    const guard = await createGuard({
      issuer: BENCH_ISSUER,
      audience: 'bench',
      auth: {
        address: `127.0.0.1:${port}`,
        credentials: credentials.createInsecure(),
        clientId: 'bench',
        clientKey: privateKey,
      },
    });
    await guard.ready;
    const readyMs = performance.now() - startedMs;
    // One more turn, so that a turn that has just ended is in the histogram.
    await sleep(POLL_MS);
    delay.disable();
    const { entries } = guard.state();
    await guard.close();
    return { readyMs, entries, blockedMs: delay.max / 1e6 };
  },

  /** Adds instances until there are so many, and waits until all of them trust their lists. */
  grow: async (options: { port: number; natsUrl: string; count: number }): Promise<void> => {
    while (instances.length < options.count) instances.push(await createInstance(options));
    while (!instances.every(({ runner }) => runner.isCurrent())) await sleep(POLL_MS);
  },

  /** Waits until all have heard of one more entry. @returns when the last one did, on the clock of the machine */
  untilHeard: async (): Promise<number> => {
    await waitUntil(() => heard >= instances.length, {
      timeoutMs: HEARD_MS_MAX,
      pollMs: POLL_MS,
      failure: () => `${heard} of ${instances.length} instances have received the entry`,
    });
    heard = 0;
    return lastHeardMs;
  },

  cpuMicroseconds: (): number => {
    const { user, system } = process.cpuUsage();
    return user + system;
  },
};

export type FleetCommands = typeof commands;

async function createInstance(options: { port: number; natsUrl: string }): Promise<Instance> {
  const { privateKey } = generateKeyPairSync('ed25519');
  const instance = randomBytes(ID_BYTES);
  const known = new Set<bigint>();
  const feed = new Feed({
    service: 'bench',
    instance,
    listener: {
      entryAdded: ({ sequence }) => {
        if (known.has(sequence)) return;
        known.add(sequence);
        heard += 1;
        lastHeardMs = performance.timeOrigin + performance.now();
      },
      listFilled: NOBODY,
      epochChanged: NOBODY,
    },
  });
  const runner = new FeedRunner({
    feed,
    source: await createRemoteSource({
      address: `127.0.0.1:${options.port}`,
      credentials: credentials.createInsecure(),
      clientId: 'bench',
      clientKey: privateKey,
      issuer: BENCH_ISSUER,
    }),
    service: 'bench',
    instance,
    nats: { url: options.natsUrl, name: 'bench', awaited: true },
    clock: systemClock,
    log: SILENT,
    onKeys: NOBODY,
    onCurrentChange: NOBODY,
    onForgery: NOBODY,
  });
  runner.start();
  return { runner, feed };
}

answerCommands(commands);
