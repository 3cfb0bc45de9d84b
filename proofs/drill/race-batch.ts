/** One batch of races: hundreds of transactions under way, and one call of Revoke for the tokens of all of them. */

import { setTimeout as sleep } from 'node:timers/promises';
import { Client, credentials } from '@grpc/grpc-js';
import { FenceState } from '../../proto/gen/portcullis/revocation/v1/revocation.js';
import { ask } from '../../scripts/system/calls.js';
import { type Random, SEED_MAX } from '../shared/random.js';
import { nowMs } from '../shared/waiting.js';
import type { RaceEnvironment, RaceToken } from './race-environment.js';
import { decodeResults, encodeRequest, RACES, type RaceResult } from './race-service.js';

/** The loops of transactions of one token. */
const LOOPS = 12;
/** How long the calls are under way before Revoke is called, in milliseconds. */
const LEAD_MS_MIN = 5;
const LEAD_MS_MAX = 60;
/** Delay of a slow link in each direction, in milliseconds, at most. */
const LINK_MS_MAX = 60;
/** How long an instance stays cut off after Revoke has returned, in milliseconds, at most. */
const CUT_MS_MAX = 250;
/** How long an instance is frozen from the call of Revoke on, in milliseconds, at most. */
const FROZEN_MS_MAX = 250;
const CALL_TIMEOUT_MS = 20_000;

/** What happens to the second instance, and how often. A frozen one holds the fence up for a second. */
const FAULTS = { none: 12, 'slow links': 8, 'cut off': 6, frozen: 1, 'thawed at the answer': 1 } as const;

export type RaceFault = keyof typeof FAULTS;

/** Chooses a fault whose name contains the text. */
export function chooseFault(random: Random, text: string): RaceFault {
  const names = Object.keys(FAULTS) as RaceFault[];
  const chosen = names
    .filter((name) => name.includes(text))
    .flatMap((name) => Array(FAULTS[name]).fill(name));
  return random.pick<RaceFault>(chosen);
}

/** What has become of a batch. */
export interface BatchOutcome {
  readonly fault: RaceFault;
  readonly isFenced: boolean;
  readonly revokeMs: number;
  /** Transactions that were under way at the same time as Revoke. */
  readonly races: readonly RaceResult[];
  /** Transactions that ended before Revoke was called. */
  readonly before: readonly RaceResult[];
  /** Transactions that began after Revoke had returned. */
  readonly after: readonly RaceResult[];
  /** Rows that were committed when Revoke had returned, and after the last transaction had ended. */
  readonly commitsAtReturn: number;
  readonly commits: number;
}

/** Calls the method that runs one transaction, and the one that returns the results. */
export interface RaceClient {
  race(request: Buffer, token: string): Promise<unknown>;
  results(): Promise<RaceResult[]>;
  close(): void;
}

export function connectRaceClient(address: string): RaceClient {
  const client = new Client(address, credentials.createInsecure());
  const identity = (bytes: Buffer): Buffer => bytes;
  const methodOf =
    ({ path }: { readonly path: string }) =>
    (...[request, metadata, options, callback]: Parameters<Parameters<typeof ask<Buffer, Buffer>>[0]>) =>
      client.makeUnaryRequest(path, identity, identity, request, metadata, options, (error, response) =>
        callback(error, response ?? Buffer.alloc(0)),
      );
  return {
    race: (request, token) => ask(methodOf(RACES.Race), request, { token, timeoutMs: CALL_TIMEOUT_MS }),
    results: async () =>
      decodeResults(await ask(methodOf(RACES.Results), Buffer.alloc(0), { timeoutMs: CALL_TIMEOUT_MS })),
    close: () => client.close(),
  };
}

/** Runs one batch to its end. */
export async function runBatch(
  environment: RaceEnvironment,
  {
    clients,
    batch,
    tokens,
    random,
    fault,
  }: {
    readonly clients: readonly RaceClient[];
    readonly batch: number;
    readonly tokens: readonly RaceToken[];
    readonly random: Random;
    readonly fault: RaceFault;
  },
): Promise<BatchOutcome> {
  const trouble = createTrouble(environment, fault, random);
  trouble.begin();
  const calls = tokens.map(({ text }, at) => {
    const request = encodeRequest({ batch, loops: LOOPS, seed: random.integer(0, SEED_MAX - LOOPS) });
    // Each call is cut, or refused.
    return clients[at % clients.length]?.race(request, text).catch(() => undefined);
  });
  await sleep(random.real(LEAD_MS_MIN, LEAD_MS_MAX));
  const calledMs = nowMs();
  trouble.revoking();
  const { results, fences } = await environment.revoke(tokens);
  const returnedMs = nowMs();
  trouble.returned();
  // The statement begins after Revoke has returned, and sees what was committed by then.
  const commitsAtReturn = await environment.countCommits(batch);
  const failed = results.find(({ errorReason }) => errorReason !== '');
  if (failed !== undefined) throw new Error(`a token was not revoked: ${failed.errorReason}`);
  await trouble.end();
  const all = (await Promise.all(clients.map((client) => client.results()))).flat();
  await Promise.all(calls);
  return {
    fault,
    isFenced: fences.every(({ state }) => state === FenceState.FENCE_STATE_FENCED),
    revokeMs: returnedMs - calledMs,
    before: all.filter(({ endedMs }) => endedMs <= calledMs),
    races: all.filter(({ beganMs, endedMs }) => endedMs > calledMs && beganMs < returnedMs),
    after: all.filter(({ beganMs }) => beganMs >= returnedMs),
    commitsAtReturn,
    commits: await environment.countCommits(batch),
  };
}

/** What a fault does at each moment of a batch. */
interface Trouble {
  begin(): void;
  revoking(): void;
  returned(): void;
  end(): Promise<void>;
}

const CALM: Trouble = { begin() {}, revoking() {}, returned() {}, end: () => Promise.resolve() };

function createTrouble({ links, instances }: RaceEnvironment, fault: RaceFault, random: Random): Trouble {
  const [, second] = instances;
  switch (fault) {
    case 'none':
      return CALM;
    case 'slow links': {
      const mode = { thereMs: random.real(0, LINK_MS_MAX), backMs: random.real(0, LINK_MS_MAX) };
      return {
        ...CALM,
        begin: () => {
          for (const link of links) link.set({ kind: 'slow', ...mode });
        },
        end: () => {
          for (const link of links) link.set({ kind: 'pass' });
          return Promise.resolve();
        },
      };
    }
    case 'cut off':
      return {
        ...CALM,
        begin: () => {
          for (const link of links) link.set({ kind: 'cut' });
        },
        end: async () => {
          await sleep(random.real(0, CUT_MS_MAX));
          for (const link of links) {
            link.set({ kind: 'pass' });
            link.reset();
          }
        },
      };
    case 'frozen': {
      let thawed: Promise<unknown> = Promise.resolve();
      return {
        ...CALM,
        revoking: () => {
          second.kill('SIGSTOP');
          thawed = sleep(random.real(0, FROZEN_MS_MAX)).then(() => second.kill('SIGCONT'));
        },
        end: async () => void (await thawed),
      };
    }
    case 'thawed at the answer':
      return {
        ...CALM,
        revoking: () => second.kill('SIGSTOP'),
        returned: () => second.kill('SIGCONT'),
      };
  }
}
