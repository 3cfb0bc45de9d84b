/** A process in which a guard starts with an empty list. */

import { generateKeyPairSync } from 'node:crypto';
import { monitorEventLoopDelay } from 'node:perf_hooks';
import { setTimeout as sleep } from 'node:timers/promises';
import { credentials } from '@grpc/grpc-js';
import { createGuard } from '@portcullis/guard';
import { BENCH_ISSUER } from './issuer.js';
import { executeCommands } from './worker.js';

const POLL_MS = 5;

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
      log: 'silent',
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
};

export type FleetCommands = typeof commands;

executeCommands(commands);
