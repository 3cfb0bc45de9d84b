/** A process that decides on calls with known tokens, without a server: the guard's own share of a call. */

import { createHash } from 'node:crypto';
import { Metadata } from '@grpc/grpc-js';
import { systemClock } from '@portcullis/guard/clock';
import { createRandom, randomSeed } from '../shared/random.js';
import { type Spread, spreadOf } from '../shared/statistics.js';
import { createDecider } from './decider.js';
import { BenchIssuer } from './issuer.js';
import { executeCommands } from './worker.js';

const KNOWN_TOKENS = 1000;
const CALLS_PER_TURN = 20_000;
const WAYS = ['nothing', 'clocks', 'guard', 'map', 'digest'] as const;
type Way = (typeof WAYS)[number];
const random = createRandom(randomSeed());

/** Nanoseconds a call, without the time for the metadata. */
export interface DecisionFigures {
  readonly guardNs: Spread;
  /** One look-up in a Map by the whole token, as in most caches. */
  readonly mapNs: Spread;
  /**
   * Reading both clocks once, as every decision must. A good part of it on most machines, and most of it where a hypervisor
   * answers for the clock.
   */
  readonly clocksNs: Spread;
  /** The guard's time divided by the Map's, by round. */
  readonly ratio: Spread;
  /** The same without the clocks: what the code of the guard takes. */
  readonly ratioWithoutClocks: Spread;
  /** One SHA-256 of the token and a look-up by it, as in caches that keep no tokens. */
  readonly digestNs: Spread;
  /** The guard's time without the clocks, divided by that of such a cache, by round. */
  readonly digestRatio: Spread;
}

const commands = {
  measure: async ({ rounds }: { rounds: number }): Promise<DecisionFigures> => {
    const issuer = await BenchIssuer.create();
    const { decide, close } = await createDecider(issuer);
    const tokens = await issuer.tokens(KNOWN_TOKENS);
    const map = new Map(tokens.map((token) => [token, {}]));
    const digestOf = (token: string): string => createHash('sha256').update(token).digest('binary');
    const digests = new Map(tokens.map((token) => [digestOf(token), {}]));
    // Each request has a new string, whose hash is not computed yet.
    const headers = tokens.map((token) => Buffer.from(`Bearer ${token}`, 'latin1'));
    for (const token of tokens) {
      const metadata = new Metadata();
      metadata.set('authorization', `Bearer ${token}`);
      await decide(metadata);
    }
    const ways: Record<Way, (metadata: Metadata) => boolean> = {
      nothing: () => true,
      clocks: () => systemClock.wallMs() + systemClock.monotonicMs() > 0,
      guard: (metadata) => !(decide(metadata) instanceof Promise),
      map: (metadata) => map.has(tokenIn(metadata)),
      digest: (metadata) => digests.has(digestOf(tokenIn(metadata))),
    };
    const turn = (way: Way): number => {
      const check = ways[way];
      const metadata = new Metadata();
      const startedMs = performance.now();
      for (let call = 0; call < CALLS_PER_TURN; call += 1) {
        const header = headers[call % headers.length];
        if (header === undefined) continue;
        metadata.set('authorization', header.toString('latin1'));
        if (!check(metadata)) throw new Error('a known token was not found');
      }
      return ((performance.now() - startedMs) * 1e6) / CALLS_PER_TURN;
    };
    const all: Record<Way, number>[] = [];
    for (let round = -5; round < rounds; round += 1) {
      const times: Record<Way, number> = { nothing: 0, clocks: 0, guard: 0, map: 0, digest: 0 };
      for (const way of random.shuffle(WAYS)) times[way] = turn(way);
      if (round >= 0) all.push(times);
    }
    await close();
    return {
      guardNs: spreadOf(all.map(({ guard, nothing }) => guard - nothing)),
      mapNs: spreadOf(all.map(({ map: own, nothing }) => own - nothing)),
      clocksNs: spreadOf(all.map(({ clocks, nothing }) => clocks - nothing)),
      ratio: spreadOf(all.map(({ guard, map: own, nothing }) => (guard - nothing) / (own - nothing))),
      ratioWithoutClocks: spreadOf(
        all.map(({ guard, clocks, map: own, nothing }) => (guard - clocks) / (own - nothing)),
      ),
      digestNs: spreadOf(all.map(({ digest, nothing }) => digest - nothing)),
      digestRatio: spreadOf(
        all.map(({ guard, clocks, digest, nothing }) => (guard - clocks) / (digest - nothing)),
      ),
    };
  },
};

function tokenIn(metadata: Metadata): string {
  return String(metadata.get('authorization')[0]).slice('Bearer '.length);
}

export type DecisionCommands = typeof commands;

executeCommands(commands);
