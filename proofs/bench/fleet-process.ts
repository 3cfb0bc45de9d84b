/** A process with many instances, each with its own feed and its own connections to issuer and broker. */

import { generateKeyPairSync, randomBytes } from 'node:crypto';
import { monitorEventLoopDelay } from 'node:perf_hooks';
import { setTimeout as sleep } from 'node:timers/promises';
import { credentials } from '@grpc/grpc-js';
import { createGuard } from '@portcullis/guard';
import { systemClock } from '@portcullis/guard/clock';
import { createRemoteSource, Feed, FeedRunner } from '@portcullis/guard/internal';
import { waitUntil } from '../shared/waiting.js';
import { BENCH_ISSUER, ID_BYTES } from './issuer.js';
import { executeCommands } from './worker.js';

const POLL_MS = 5;
const RECEIVED_MS_MAX = 10_000;
const IGNORE = (): void => {};
const SILENT = { info: IGNORE, warn: IGNORE, error: IGNORE };

interface Instance {
  readonly runner: FeedRunner;
  readonly feed: Feed;
}

const instances: Instance[] = [];
let received = 0;
let lastReceivedMs = 0;

const commands = {
  /** Starts a guard with an empty list. @returns the time until it was ready, in milliseconds */
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
    // One more turn of the event loop, so that the last one is in the histogram.
    await sleep(POLL_MS);
    delay.disable();
    const { entries } = guard.state();
    await guard.close();
    return { readyMs, entries, blockedMs: delay.max / 1e6 };
  },

  /** Adds instances up to a number, and waits until all of their lists are current. */
  grow: async (options: { port: number; natsUrl: string; count: number }): Promise<void> => {
    while (instances.length < options.count) instances.push(await createInstance(options));
    while (!instances.every(({ runner }) => runner.isCurrent())) await sleep(POLL_MS);
  },

  /** Waits until every instance has received one more entry. @returns when the last one did, in Unix milliseconds */
  untilReceived: async (): Promise<number> => {
    await waitUntil(() => received >= instances.length, {
      timeoutMs: RECEIVED_MS_MAX,
      pollMs: POLL_MS,
      failure: () => `${received} of ${instances.length} instances have received the entry`,
    });
    received = 0;
    return lastReceivedMs;
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
        received += 1;
        lastReceivedMs = performance.timeOrigin + performance.now();
      },
      listFilled: IGNORE,
      epochChanged: IGNORE,
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
    onKeys: IGNORE,
    onCurrentChange: IGNORE,
    onForgery: IGNORE,
  });
  runner.start();
  return { runner, feed };
}

executeCommands(commands);
