/** Rounds: a fault occurs while tokens are revoked, and every outcome is checked. */

import { setTimeout as sleep } from 'node:timers/promises';
import { ask } from '../../scripts/system/calls.js';
import type { Random } from '../shared/random.js';
import { nowMs } from '../shared/waiting.js';
import { type Clients, MOVING_SKU, questionsOf, streamKindsOf } from './calls.js';
import type { Environment, InstanceName } from './environment.js';
import { delayUnevenly, openEpochByCommand, restoreAuthDatabase, saveAuthDatabase } from './epochs.js';
import type { Fault } from './faults.js';
import type { Intruder } from './forgeries.js';
import { Load, type Player } from './load.js';
import {
  gatherParticipants,
  logInAs,
  type Participants,
  type Revocation,
  type Revoker,
} from './participants.js';
import type { RevocationOracle, RoundFigures } from './revocation-oracle.js';
import type { Starvation } from './starvation.js';

/**
 * Every instance must serve again within this time after a fault was healed, in milliseconds. Time that the processes
 * waited for a processor does not count.
 */
const BACK_WITHIN_MS = 10_000;

const WARM_UP_MS = 300;
/** Longer than any fault lasts. */
const STRIKE_MS_MAX = 60_000;
const AFTERMATH_MS = 250;
/** The upper limit of any wait, however little the processes run. */
const PATIENCE_MS_MAX = 90_000;
const MOVE_INTERVAL_MS = 150;
const MOVES_REMEMBERED = 2_000;
const SWEEP_TIMEOUT_MS = 2_000;
const SWEEP_PAUSE_MS = 200;
/** Tokens of earlier rounds are used again until they expire. */
const REMEMBERED_PLAYERS = 24;
const REMEMBERED_FOR_MS = 240_000;
/** Once in this many rounds the signing key is revoked. */
const KEY_EVERY_ROUNDS = 5;
/** Once in this many rounds an epoch is opened, and in another round an epoch is lost. */
const EPOCH_EVERY_ROUNDS = 4;

/** Context of all rounds. */
export interface Rounds {
  readonly environment: Environment;
  readonly clients: Clients;
  readonly oracle: RevocationOracle;
  readonly revoker: Revoker;
  readonly intruder: Intruder;
  readonly starvation: Starvation;
  readonly random: Random;
  readonly leaseMs: number;
  /** Duration of every fault; its own default when undefined. */
  readonly faultMs: number | undefined;
  readonly signal: AbortSignal;
  /** Revoked tokens of earlier rounds, with the moment from which they may be expired. */
  readonly remembered: { readonly player: Player; readonly untilMs: number }[];
  readonly turns: Map<string, number>;
}

/** Runs one round; an interrupted one ends early. Never rejects. */
export async function runRound(rounds: Rounds, round: number, fault: Fault): Promise<RoundFigures> {
  const { oracle, signal } = rounds;
  const figures = oracle.beginRound(round, fault.name, fault.mayLoseService);
  try {
    await play(rounds, round, fault, figures);
  } catch (error) {
    if (!signal.aborted)
      oracle.report('NOT_BACK', `the round ended early: ${error instanceof Error ? error.message : error}`);
  }
  oracle.endRound();
  return figures;
}

async function play(rounds: Rounds, round: number, fault: Fault, figures: RoundFigures): Promise<void> {
  const { environment, clients, oracle, random, revoker, signal } = rounds;
  await revoker.prepare();
  const participants = await gatherParticipants({ environment, clients, random, round });
  const mover = moveStock(rounds);
  const load = new Load({
    oracle,
    clients,
    instances: environment.instances,
    questions: questionsOf(clients),
    kinds: streamKindsOf(clients, mover.movedAt),
    players: participants.players,
  });
  load.start();
  try {
    await sleep(WARM_UP_MS, undefined, { signal });
    await strike({ rounds, fault, participants, load, figures });
    await sweep(rounds, load, participants);
    if (round % KEY_EVERY_ROUNDS === 0) await revokeKey(rounds, load, participants);
    if (round % EPOCH_EVERY_ROUNDS === 2) await openEpochAmidQuestions(rounds, load, participants);
    if (round % EPOCH_EVERY_ROUNDS === 0) await loseEpoch(rounds, load, participants);
    await load.hearWitnesses();
    const open = await load.leftOpen();
    if (open.length > 0) oracle.report('STREAM_LEFT_OPEN', open.join(', '));
  } finally {
    await mover.stop();
    await load.stop();
  }
  remember(rounds, participants);
}

async function strike(acting: {
  rounds: Rounds;
  fault: Fault;
  participants: Participants;
  load: Load;
  figures: RoundFigures;
}): Promise<void> {
  const { rounds, fault, participants, load, figures } = acting;
  const { environment, clients, intruder, oracle, leaseMs, random, revoker, signal, turns } = rounds;
  const waiting = [...participants.revocations];
  const done: Promise<void>[] = [];
  let isLate = lateAfter(rounds, STRIKE_MS_MAX);
  const insist = async (revocation: Revocation): Promise<void> => {
    // The limit moves with the healing, so it is evaluated each time.
    while (!(await revoker.once(revocation))) {
      if (signal.aborted) return;
      if (isLate('auth')) {
        return oracle.report('NOT_BACK', `the ${revocation.name} could not be revoked`);
      }
      await sleep(SWEEP_PAUSE_MS / 2);
    }
  };
  const revokeNext = (): void => {
    const next = waiting.shift();
    if (next !== undefined) done.push(insist(next));
  };

  revokeNext();
  if (random.next() < 0.5) await sleep(random.integer(0, WARM_UP_MS), undefined, { signal });
  const turn = turns.get(fault.name) ?? 0;
  turns.set(fault.name, turn + 1);
  const heal = await fault.strike({
    environment,
    clients,
    load,
    intruder,
    random,
    leaseMs,
    turn,
    targets: participants.good,
    async revokeOne() {
      const next = waiting.shift();
      if (next === undefined) return;
      if (!(await revoker.once(next))) done.push(insist(next));
    },
    revokeOthers: (count) => revoker.revokeOthers(count),
  });
  const [min, max] = fault.lasts;
  const lastsMs = rounds.faultMs ?? leaseMs * (min + random.next() * (max - min));
  revokeNext();
  revokeNext();
  await sleep(lastsMs / 2, undefined, { signal });
  revokeNext();
  await sleep(lastsMs / 2, undefined, { signal });
  const healedMs = nowMs();
  isLate = lateAfter(rounds, BACK_WITHIN_MS);
  load.countAnew();
  await heal();
  for (let left = waiting.length; left > 0; left -= 1) revokeNext();
  const missing = await load.untilServed(isLate);
  for (const instance of missing) oracle.report('NOT_BACK', `${instance} does not serve good tokens`);
  figures.backAfterMs = Math.max(0, load.servedSinceMs() - healedMs);
  await Promise.all(done);
  // The last revocation must hold by now, with or without the fault.
  await sleep(oracle.boundMs + AFTERMATH_MS, undefined, { signal });
}

/**
 * No fault is active and the bound has passed: every instance must refuse every revoked token. One that has no answer yet is
 * asked again, for as long as an instance may take to serve.
 */
async function sweep(rounds: Rounds, load: Load, participants: Participants): Promise<void> {
  const { oracle, remembered } = rounds;
  const now = nowMs();
  const earlier = remembered.filter(({ untilMs }) => untilMs > now).map(({ player }) => player);
  const revoked = [...participants.players, ...earlier].filter(({ revokedMs }) => revokedMs !== undefined);
  for (const player of revoked) {
    const isLate = lateAfter(rounds, BACK_WITHIN_MS);
    for (;;) {
      const answers = await load.askEverything(player, SWEEP_TIMEOUT_MS);
      const kept = answers.filter(({ outcome }) => outcome.kind !== 'refused');
      if (kept.length === 0) break;
      const isAdmitted = kept.some(({ outcome }) => outcome.kind === 'admitted');
      if (!isAdmitted && !kept.some(({ question }) => isLate(question.instance))) {
        await sleep(SWEEP_PAUSE_MS);
        continue;
      }
      const where = kept.map(
        ({ question, outcome }) => `${question.method} on ${question.instance}: ${outcome.kind}`,
      );
      oracle.report(isAdmitted ? 'REVOCATION_LOST' : 'NOT_BACK', `${player.name}: ${where.join(', ')}`);
      break;
    }
  }
}

/** Revokes the signing key: every token is refused, and new logins are served. */
async function revokeKey(rounds: Rounds, load: Load, participants: Participants): Promise<void> {
  const { oracle, revoker } = rounds;
  const isLate = lateAfter(rounds, BACK_WITHIN_MS);
  if (!(await revoker.untilDone(participants.keyRevocation, () => isLate('auth')))) {
    return oracle.report('NOT_BACK', 'the key could not be revoked');
  }
  await sleep(oracle.boundMs + AFTERMATH_MS);
  await beServedAnew({ rounds, load, isLate, as: 'user of the next key' });
  await sweep(rounds, load, participants);
}

/** Logs in again, and waits until every instance admits the new token. @returns the token */
async function beServedAnew(waiting: {
  rounds: Rounds;
  load: Load;
  isLate: (instance: InstanceName) => boolean;
  as: string;
}): Promise<Player> {
  const { rounds, load, isLate, as } = waiting;
  const { environment, clients, oracle, revoker } = rounds;
  await revoker.prepare();
  // The first customer may have lost a scope.
  const { player } = await logInAs(clients, environment.customers.at(-1), as);
  const missing = new Set<InstanceName>(environment.instances);
  while (missing.size > 0 && ![...missing].some(isLate)) {
    for (const { question, outcome } of await load.askEverything(player, SWEEP_TIMEOUT_MS)) {
      if (outcome.kind === 'admitted') missing.delete(question.instance);
    }
  }
  if (missing.size > 0) oracle.report('NOT_BACK', `${[...missing].join(', ')} do not serve the ${as}`);
  return player;
}

/** In a new epoch instances admit nothing before their list is complete. */
function readNothingAtFirst({ instances }: Environment, { restarted }: Load): void {
  for (const name of instances) restarted.add(name);
}

/** Revokes the next key and opens an epoch while many Sync responses are in flight. */
async function openEpochAmidQuestions(rounds: Rounds, load: Load, participants: Participants): Promise<void> {
  const { environment, oracle, leaseMs, random, revoker } = rounds;
  await revoker.prepare();
  readNothingAtFirst(environment, load);
  // A new epoch ends all leases until each instance has its list, over links that are delayed.
  oracle.allowServiceLoss();
  const heal = delayUnevenly(environment, { random, longestMs: leaseMs / 2 });
  try {
    await sleep(leaseMs / 2);
    await revoker.revokeNextKey();
    await sleep(random.real(0, leaseMs / 10));
    if (!(await openEpochPatiently(rounds, participants))) return;
    // Older tokens are refused by then, and tokens that were revoked long ago at any time.
    await sleep(oracle.boundMs + AFTERMATH_MS);
  } finally {
    heal();
  }
  const isLate = lateAfter(rounds, BACK_WITHIN_MS);
  await beServedAnew({ rounds, load, isLate, as: 'user of the new epoch' });
  await sweep(rounds, load, participants);
}

/** @returns whether an epoch was opened before auth was late */
async function openEpochPatiently(rounds: Rounds, participants: Participants): Promise<boolean> {
  const isLate = lateAfter(rounds, BACK_WITHIN_MS);
  while (!(await rounds.revoker.openEpoch(participants.players))) {
    if (isLate('auth')) {
      rounds.oracle.report('NOT_BACK', 'no epoch could be opened');
      return false;
    }
    await sleep(SWEEP_PAUSE_MS);
  }
  return true;
}

/**
 * Restores auth's database to before an epoch was opened. All instances followed the lost epoch, so none admits any
 * token until an operator opens another epoch.
 */
async function loseEpoch(rounds: Rounds, load: Load, participants: Participants): Promise<void> {
  const { environment, oracle, leaseMs, revoker } = rounds;
  await revoker.prepare();
  readNothingAtFirst(environment, load);
  // Cutting the database's connections, and the loss of the epoch, cost leases.
  oracle.allowServiceLoss();
  await saveAuthDatabase(environment);
  if (!(await openEpochPatiently(rounds, participants))) return;
  // Until its next Sync an instance does not have the new keys, and refuses their tokens.
  await sleep(oracle.boundMs + AFTERMATH_MS);
  let isLate = lateAfter(rounds, BACK_WITHIN_MS);
  const player = await beServedAnew({ rounds, load, isLate, as: 'user of the epoch that is lost' });
  oracle.revoking([player], nowMs());
  await restoreAuthDatabase(environment);
  // From now on the loss counts as a revocation of every token.
  oracle.revoked([player], nowMs());
  const untilMs = nowMs() + oracle.boundMs + 2 * leaseMs;
  while (nowMs() < untilMs) {
    await load.askEverything(player, SWEEP_TIMEOUT_MS);
    await sleep(SWEEP_PAUSE_MS / 2);
  }
  await openEpochByCommand(environment);
  isLate = lateAfter(rounds, BACK_WITHIN_MS);
  await beServedAnew({ rounds, load, isLate, as: 'user of the epoch after the restore' });
  await sweep(rounds, load, participants);
}

/** Returns whether this much time has passed for an instance since now, without time that it waited for a processor. */
function lateAfter(
  { environment, starvation }: Rounds,
  patienceMs: number,
): (instance: InstanceName) => boolean {
  const sinceMs = nowMs();
  const before = new Map(environment.instances.map((name) => [name, starvation.waitedMs(name)]));
  return (instance) => {
    const passedMs = nowMs() - sinceMs;
    const waitedMs = starvation.waitedMs(instance) - (before.get(instance) ?? 0);
    return passedMs > PATIENCE_MS_MAX || passedMs - waitedMs > patienceMs;
  };
}

function remember({ remembered }: Rounds, participants: Participants): void {
  const untilMs = nowMs() + REMEMBERED_FOR_MS;
  for (const player of participants.players) {
    if (player.revokedMs !== undefined) remembered.push({ player, untilMs });
  }
  remembered.splice(0, Math.max(0, remembered.length - REMEMBERED_PLAYERS));
}

/** Changes one item's stock continuously, so that WatchStock has messages, and records the time of each request. */
function moveStock({ clients, revoker }: Rounds): {
  movedAt: (onHand: bigint) => number | undefined;
  stop: () => Promise<void>;
} {
  const moments = new Map<bigint, number>();
  let isStopped = false;
  const moving = (async () => {
    for (let turn = 0; !isStopped; turn += 1) {
      const client = clients.inventory[turn % 2 === 0 ? 0 : 1];
      const sentMs = nowMs();
      const request = { sku: MOVING_SKU, delta: 1n, reason: 'drill', requestId: crypto.randomUUID() };
      const options = { token: await revoker.token(), timeoutMs: 1_000 };
      const moved = await ask(client.adjustStock.bind(client), request, options).catch(() => undefined);
      if (moved?.item !== undefined) moments.set(moved.item.onHand, sentMs);
      if (moments.size > MOVES_REMEMBERED) moments.clear();
      await sleep(MOVE_INTERVAL_MS);
    }
  })();
  return {
    movedAt: (onHand) => moments.get(onHand),
    async stop() {
      isStopped = true;
      await moving;
    },
  };
}
