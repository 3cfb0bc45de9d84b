/** One round after another: a fault strikes while tokens are taken back, and everything is watched. */

import { setTimeout as sleep } from 'node:timers/promises';
import { ask } from '../../scripts/system/calls.js';
import type { Random } from '../shared/random.js';
import { nowMs } from '../shared/waiting.js';
import { type Clients, MOVING_SKU, questionsOf, streamKindsOf } from './calls.js';
import { type Arena, INSTANCES, type InstanceName } from './environment.js';
import { delayUnevenly, openEpochByCommand, restoreAuthDatabase, saveAuthDatabase } from './epochs.js';
import type { Fault } from './faults.js';
import type { Intruder } from './forgeries.js';
import { Load, type Player } from './load.js';
import { type Cast, gatherCast, logInAs, type Revocation, type Revoker } from './participants.js';
import type { Ledger, RoundFigures } from './revocation-oracle.js';
import type { Starvation } from './starvation.js';

/**
 * Everything must be served again so soon after a fault was healed, in milliseconds; the time for
 * which the processes had to wait for a processor does not count.
 */
export const BACK_WITHIN_MS = 10_000;

const WARM_UP_MS = 300;
/** Longer than any fault lasts. */
const STRIKE_MS_MAX = 60_000;
const AFTERMATH_MS = 250;
/** However little the processes run, nobody waits longer than that. */
const PATIENCE_MS_MAX = 90_000;
const MOVE_INTERVAL_MS = 150;
const MOVES_REMEMBERED = 2_000;
const SWEEP_TIMEOUT_MS = 2_000;
const SWEEP_ATTEMPTS_MAX = 5;
const SWEEP_PAUSE_MS = 200;
/** Tokens of earlier rounds are asked about again while they have not expired. */
const REMEMBERED_PLAYERS = 24;
const REMEMBERED_FOR_MS = 240_000;
/** Every so many rounds the key itself is taken back. */
const KEY_EVERY_ROUNDS = 5;
/** In one round of so many an epoch is opened, and in another one an epoch is lost. */
const EPOCH_EVERY_ROUNDS = 4;

/** What all rounds share. */
export interface Rounds {
  readonly arena: Arena;
  readonly clients: Clients;
  readonly ledger: Ledger;
  readonly revoker: Revoker;
  readonly intruder: Intruder;
  readonly starvation: Starvation;
  readonly random: Random;
  readonly leaseMs: number;
  /** How long every fault lasts; each as long as suits it when undefined. */
  readonly faultMs: number | undefined;
  readonly signal: AbortSignal;
  /** Revoked tokens of earlier rounds, with the moment from which they may have expired. */
  readonly remembered: { readonly player: Player; readonly untilMs: number }[];
  readonly turns: Map<string, number>;
}

/** Runs one round; an interrupted one ends early. Never rejects. */
export async function runRound(rounds: Rounds, round: number, fault: Fault): Promise<RoundFigures> {
  const { ledger, signal } = rounds;
  const figures = ledger.beginRound(round, fault.name, fault.mayLoseService);
  try {
    await play(rounds, round, fault, figures);
  } catch (error) {
    if (!signal.aborted)
      ledger.report('NOT_BACK', `the round ended early: ${error instanceof Error ? error.message : error}`);
  }
  ledger.endRound();
  return figures;
}

async function play(rounds: Rounds, round: number, fault: Fault, figures: RoundFigures): Promise<void> {
  const { arena, clients, ledger, random, revoker, signal } = rounds;
  await revoker.prepare();
  const cast = await gatherCast({ arena, clients, random, round });
  const mover = moveStock(rounds);
  const load = new Load({
    ledger,
    clients,
    questions: questionsOf(clients),
    kinds: streamKindsOf(clients, mover.movedAt),
    players: cast.players,
  });
  load.start();
  try {
    await sleep(WARM_UP_MS, undefined, { signal });
    await strike({ rounds, fault, cast, load, figures });
    await sweep(rounds, load, cast);
    if (round % KEY_EVERY_ROUNDS === 0) await revokeKey(rounds, load, cast);
    if (round % EPOCH_EVERY_ROUNDS === 2) await openEpochAmidQuestions(rounds, load, cast);
    if (round % EPOCH_EVERY_ROUNDS === 0) await loseEpoch(rounds, load, cast);
    await load.hearWitness();
    const open = await load.leftOpen();
    if (open.length > 0) ledger.report('STREAM_LEFT_OPEN', open.join(', '));
  } finally {
    await mover.stop();
    await load.stop();
  }
  remember(rounds, cast);
}

async function strike(acting: {
  rounds: Rounds;
  fault: Fault;
  cast: Cast;
  load: Load;
  figures: RoundFigures;
}): Promise<void> {
  const { rounds, fault, cast, load, figures } = acting;
  const { arena, clients, intruder, ledger, leaseMs, random, revoker, signal, turns } = rounds;
  const waiting = [...cast.revocations];
  const done: Promise<void>[] = [];
  const { starvation } = rounds;
  let isLate = lateAfter(starvation, STRIKE_MS_MAX);
  const insist = async (revocation: Revocation): Promise<void> => {
    // What counts as late changes with the healing, so it is asked again and again.
    while (!(await revoker.once(revocation))) {
      if (signal.aborted) return;
      if (isLate('auth')) {
        return ledger.report('NOT_BACK', `the ${revocation.name} could not be revoked`);
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
    arena,
    clients,
    load,
    intruder,
    random,
    leaseMs,
    turn,
    targets: cast.good,
    async revokeOne() {
      const next = waiting.shift();
      if (next === undefined) return;
      if (!(await revoker.once(next))) done.push(insist(next));
    },
  });
  const [min, max] = fault.lasts;
  const lastsMs = rounds.faultMs ?? leaseMs * (min + random.next() * (max - min));
  revokeNext();
  revokeNext();
  await sleep(lastsMs / 2, undefined, { signal });
  revokeNext();
  await sleep(lastsMs / 2, undefined, { signal });
  const healedMs = nowMs();
  isLate = lateAfter(starvation, BACK_WITHIN_MS);
  load.countAnew();
  await heal();
  for (let left = waiting.length; left > 0; left -= 1) revokeNext();
  const missing = await load.untilServed(isLate);
  for (const instance of missing) ledger.report('NOT_BACK', `${instance} does not serve good tokens`);
  figures.backAfterMs = Math.max(0, load.servedSinceMs() - healedMs);
  await Promise.all(done);
  // Whatever was revoked last must hold by now, broken or not.
  await sleep(ledger.boundMs + AFTERMATH_MS, undefined, { signal });
}

/** Everything is whole and the bound has passed: every instance must refuse every revoked token now. */
async function sweep({ ledger, remembered }: Rounds, load: Load, cast: Cast): Promise<void> {
  const now = nowMs();
  const earlier = remembered.filter(({ untilMs }) => untilMs > now).map(({ player }) => player);
  const revoked = [...cast.players, ...earlier].filter(({ revokedMs }) => revokedMs !== undefined);
  for (const player of revoked) {
    for (let attempt = 1; ; attempt += 1) {
      const answers = await load.askEverything(player, SWEEP_TIMEOUT_MS);
      const kept = answers.filter(({ outcome }) => outcome.kind !== 'refused');
      if (kept.length === 0) break;
      if (attempt < SWEEP_ATTEMPTS_MAX && kept.every(({ outcome }) => outcome.kind !== 'admitted')) {
        await sleep(SWEEP_PAUSE_MS);
        continue;
      }
      const where = kept.map(
        ({ question, outcome }) => `${question.method} on ${question.instance}: ${outcome.kind}`,
      );
      ledger.report('REVOCATION_LOST', `${player.name}: ${where.join(', ')}`);
      break;
    }
  }
}

/** Takes the signing key back: every token dies, and whoever logs in again is served again. */
async function revokeKey(rounds: Rounds, load: Load, cast: Cast): Promise<void> {
  const { ledger, revoker } = rounds;
  const isLate = lateAfter(rounds.starvation, BACK_WITHIN_MS);
  if (!(await revoker.untilDone(cast.keyRevocation, () => isLate('auth')))) {
    return ledger.report('NOT_BACK', 'the key could not be revoked');
  }
  await sleep(ledger.boundMs + AFTERMATH_MS);
  await beServedAnew({ rounds, load, isLate, as: 'user of the next key' });
  await sweep(rounds, load, cast);
}

/** Logs in again, and waits until every instance serves the new token. @returns the token */
async function beServedAnew(waiting: {
  rounds: Rounds;
  load: Load;
  isLate: (instance: InstanceName) => boolean;
  as: string;
}): Promise<Player> {
  const { rounds, load, isLate, as } = waiting;
  const { arena, clients, ledger, revoker } = rounds;
  await revoker.prepare();
  const { player } = await logInAs(clients, arena.customers[0], as);
  const missing = new Set<InstanceName>(INSTANCES);
  while (missing.size > 0 && ![...missing].some(isLate)) {
    for (const { question, outcome } of await load.askEverything(player, SWEEP_TIMEOUT_MS)) {
      if (outcome.kind === 'admitted') missing.delete(question.instance);
    }
  }
  if (missing.size > 0) ledger.report('NOT_BACK', `${[...missing].join(', ')} do not serve the ${as}`);
  return player;
}

/** In a new epoch instances may read nothing before they have its list. */
function readNothingAtFirst({ restarted }: Load): void {
  for (const name of INSTANCES) restarted.add(name);
}

/** Revokes the key that is to sign next and opens an epoch while the answers to many questions are on their way. */
async function openEpochAmidQuestions(rounds: Rounds, load: Load, cast: Cast): Promise<void> {
  const { arena, ledger, leaseMs, random, revoker } = rounds;
  await revoker.prepare();
  readNothingAtFirst(load);
  const heal = delayUnevenly(arena, { random, longestMs: leaseMs / 2 });
  try {
    await sleep(leaseMs / 2);
    await revoker.revokeNextKey();
    await sleep(random.real(0, leaseMs / 10));
    if (!(await revoker.openEpoch(cast.players)))
      return ledger.report('NOT_BACK', 'no epoch could be opened');
    // Everything of before is refused by then, and what was revoked long ago at any time.
    await sleep(ledger.boundMs + AFTERMATH_MS);
  } finally {
    heal();
  }
  const isLate = lateAfter(rounds.starvation, BACK_WITHIN_MS);
  await beServedAnew({ rounds, load, isLate, as: 'user of the new epoch' });
  await sweep(rounds, load, cast);
}

/**
 * Restores auth's database to before an epoch was opened. All instances have followed the lost one, so none serves
 * anybody, whichever epoch the token is of, until an operator opens the next one.
 */
async function loseEpoch(rounds: Rounds, load: Load, cast: Cast): Promise<void> {
  const { arena, ledger, leaseMs, revoker } = rounds;
  await revoker.prepare();
  readNothingAtFirst(load);
  await saveAuthDatabase(arena);
  let isLate = lateAfter(rounds.starvation, BACK_WITHIN_MS);
  while (!(await revoker.openEpoch(cast.players))) {
    if (isLate('auth')) return ledger.report('NOT_BACK', 'no epoch could be opened');
    await sleep(SWEEP_PAUSE_MS);
  }
  // Until an instance has asked it does not know the new keys, and refuses their tokens.
  await sleep(ledger.boundMs + AFTERMATH_MS);
  isLate = lateAfter(rounds.starvation, BACK_WITHIN_MS);
  const player = await beServedAnew({ rounds, load, isLate, as: 'user of the epoch that is lost' });
  ledger.revoking([player], nowMs());
  await restoreAuthDatabase(arena);
  // From now on the loss itself counts as the revocation of all there is.
  ledger.revoked([player], nowMs());
  const untilMs = nowMs() + ledger.boundMs + 2 * leaseMs;
  while (nowMs() < untilMs) {
    await load.askEverything(player, SWEEP_TIMEOUT_MS);
    await sleep(SWEEP_PAUSE_MS / 2);
  }
  await openEpochByCommand(arena);
  isLate = lateAfter(rounds.starvation, BACK_WITHIN_MS);
  await beServedAnew({ rounds, load, isLate, as: 'user of the epoch after the restore' });
  await sweep(rounds, load, cast);
}

/** Tells whether so much time has passed for an instance since now, the time not counted in which it had no processor. */
function lateAfter(starvation: Starvation, patienceMs: number): (instance: InstanceName) => boolean {
  const sinceMs = nowMs();
  const before = new Map(INSTANCES.map((name) => [name, starvation.waitedMs(name)]));
  return (instance) => {
    const passedMs = nowMs() - sinceMs;
    const waitedMs = starvation.waitedMs(instance) - (before.get(instance) ?? 0);
    return passedMs > PATIENCE_MS_MAX || passedMs - waitedMs > patienceMs;
  };
}

function remember({ remembered }: Rounds, cast: Cast): void {
  const untilMs = nowMs() + REMEMBERED_FOR_MS;
  for (const player of cast.players) {
    if (player.revokedMs !== undefined) remembered.push({ player, untilMs });
  }
  remembered.splice(0, Math.max(0, remembered.length - REMEMBERED_PLAYERS));
}

/** Moves one item's stock all the time, so that there is something to watch, and remembers when it asked for what. */
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
