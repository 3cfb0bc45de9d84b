/** Operators as a process: they revoke sessions in closed loops, while an instance syncs beside them. */

import { randomBytes } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';
import { credentials } from '@grpc/grpc-js';
import {
  RevocationServiceClient,
  type RevokeRequest,
  RevokeWait,
  type SyncRequest,
} from '../../proto/gen/portcullis/revocation/v1/revocation.js';
import { ask } from '../../scripts/system/calls.js';
import { executeCommands } from './worker.js';

const CONNECTIONS = 4;
/** The pause between two syncs of the instance, in milliseconds. */
const SYNC_EVERY_MS = 10;
const CALL_MS_MAX = 60_000;

/** What a run has measured. */
export interface RevokerFigures {
  readonly perSecond: number;
  /** Milliseconds of each call. */
  readonly callMs: readonly number[];
  /** Milliseconds of each Sync meanwhile. */
  readonly syncMs: readonly number[];
}

const commands = {
  /** Revokes all sessions, `concurrency` calls at once with `batch` targets each. */
  revoke: async (run: {
    port: number;
    sessions: readonly string[];
    concurrency: number;
    batch: number;
  }): Promise<RevokerFigures> => {
    const clients = Array.from(
      { length: Math.min(CONNECTIONS, run.concurrency) },
      () =>
        new RevocationServiceClient(`127.0.0.1:${run.port}`, credentials.createInsecure(), {
          'grpc.use_local_subchannel_pool': 1,
        }),
    );
    const left = [...run.sessions];
    const callMs: number[] = [];
    const ended = new AbortController();
    const syncing = syncUntil(run.port, ended.signal);
    const startedMs = performance.now();
    const loop = async (client: RevocationServiceClient): Promise<void> => {
      for (let batch = left.splice(0, run.batch); batch.length > 0; batch = left.splice(0, run.batch)) {
        const calledMs = performance.now();
        const request = requestOf(batch, run.batch > 1);
        await ask(client.revoke.bind(client), request, { timeoutMs: CALL_MS_MAX });
        callMs.push(performance.now() - calledMs);
      }
    };
    await Promise.all(
      Array.from({ length: run.concurrency }, async (_, index) => {
        const client = clients[index % clients.length];
        if (client !== undefined) await loop(client);
      }),
    );
    const perSecond = run.sessions.length / ((performance.now() - startedMs) / 1000);
    ended.abort();
    const syncMs = await syncing;
    for (const client of clients) client.close();
    return { perSecond, callMs, syncMs };
  },

  /** Syncs for a time in which nothing is revoked. */
  syncAlone: async (run: { port: number; ms: number }): Promise<number[]> =>
    await syncUntil(run.port, AbortSignal.timeout(run.ms)),
};

export type RevokerCommands = typeof commands;

function requestOf(sessions: readonly string[], isMany: boolean): RevokeRequest {
  const targets = sessions.map((value) => ({ target: { $case: 'sessionId' as const, value } }));
  const rest = { reason: 'bench', wait: RevokeWait.REVOKE_WAIT_NONE, dryRun: false, fences: [] };
  return isMany
    ? { ...rest, target: undefined, targets }
    : { ...rest, target: targets[0]?.target, targets: [] };
}

/** Follows the log as an instance does that learns of entries by syncs alone. */
async function syncUntil(port: number, signal: AbortSignal): Promise<number[]> {
  const client = new RevocationServiceClient(`127.0.0.1:${port}`, credentials.createInsecure(), {
    'grpc.use_local_subchannel_pool': 1,
  });
  const times: number[] = [];
  let question: SyncRequest = {
    service: 'bench',
    instance: randomBytes(16),
    epoch: Buffer.alloc(0),
    applied: 0n,
    entryIdAtApplied: Buffer.alloc(0),
    keySetVersion: Buffer.alloc(32),
    seen: [],
    kinds: [],
    claimIds: [],
    description: undefined,
    leaving: false,
    fences: [],
    heldTo: 0n,
    heldDigest: Buffer.alloc(0),
  };
  while (!signal.aborted) {
    const calledMs = performance.now();
    const { epoch, head, entryIdAtHead } = await ask(client.sync.bind(client), question, {
      timeoutMs: CALL_MS_MAX,
    });
    times.push(performance.now() - calledMs);
    question = { ...question, epoch, applied: head, entryIdAtApplied: entryIdAtHead };
    await sleep(SYNC_EVERY_MS);
  }
  client.close();
  return times;
}

executeCommands(commands);
