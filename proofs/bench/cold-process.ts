/** A process that verifies new tokens with the guard, with jose, and with `node:crypto` alone. */

import { constants, createPublicKey, type VerifyKeyObjectInput, verify } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';
import { type CryptoKey, importJWK, type JWK, jwtVerify } from 'jose';
import { createRandom, randomSeed } from '../shared/random.js';
import { bearer, createDecider } from './decider.js';
import { ECHO_AUDIENCE } from './echo.js';
import { BENCH_ISSUER, BenchIssuer } from './issuer.js';
import { executeCommands } from './worker.js';

export const WAYS = ['guard', 'jose', 'node-crypto'] as const;
export type Way = (typeof WAYS)[number];

/** The time of one verifier for a token, one at a time or many at once. */
export interface ColdTurn {
  readonly cpuMicroseconds: number;
  readonly wallMicroseconds: number;
}

export type ColdRounds = readonly Readonly<Record<Way, Readonly<Record<'one' | 'many', ColdTurn>>>>[];

const IN_FLIGHT = 64;
const random = createRandom(randomSeed());

/** Options of OpenSSL for the algorithms that need some. */
const ENCODINGS: Readonly<Record<string, Omit<VerifyKeyObjectInput, 'key'>>> = {
  ES256: { dsaEncoding: 'ieee-p1363' },
  PS256: { padding: constants.RSA_PKCS1_PSS_PADDING, saltLength: constants.RSA_PSS_SALTLEN_DIGEST },
};

/** One verifier. `given` prepares its input outside of the measurement, as a server has that input anyway. */
interface WayOf<T> {
  given(token: string): T;
  check(given: T): Promise<unknown> | undefined;
}

type Measure = (tokens: readonly string[], inFlight: number) => Promise<ColdTurn>;

const commands = {
  measure: async (how: { algorithm: string; tokens: number; rounds: number }): Promise<ColdRounds> => {
    const issuer = await BenchIssuer.create(how.algorithm);
    const ways = await createWays(issuer);
    const rounds: Record<Way, Record<'one' | 'many', ColdTurn>>[] = [];
    // The first rounds warm V8 up and do not count.
    for (let round = -2; round < how.rounds; round += 1) {
      const figures: Partial<Record<Way, Record<'one' | 'many', ColdTurn>>> = {};
      for (const way of random.shuffle(WAYS)) {
        const one = await ways[way](await issuer.tokens(how.tokens), 1);
        const many = await ways[way](await issuer.tokens(how.tokens), IN_FLIGHT);
        figures[way] = { one, many };
      }
      if (round >= 0) rounds.push(figures as Record<Way, Record<'one' | 'many', ColdTurn>>);
    }
    await ways.close();
    return rounds;
  },
};

export type ColdCommands = typeof commands;

function measured<T>(way: WayOf<T>): Measure {
  return (tokens, inFlight) => turn(way, tokens, inFlight);
}

async function turn<T>(
  { given, check }: WayOf<T>,
  tokens: readonly string[],
  inFlight: number,
): Promise<ColdTurn> {
  const all = tokens.map(given);
  await sleep(0);
  const cpu = process.cpuUsage();
  const startedMs = performance.now();
  let next = 0;
  const work = async (): Promise<void> => {
    while (next < all.length) {
      const one = all[next] as T;
      next += 1;
      await check(one);
    }
  };
  await Promise.all(Array.from({ length: inFlight }, work));
  const { user, system } = process.cpuUsage(cpu);
  return {
    cpuMicroseconds: (user + system) / tokens.length,
    wallMicroseconds: ((performance.now() - startedMs) * 1000) / tokens.length,
  };
}

async function createWays(issuer: BenchIssuer): Promise<Record<Way, Measure> & { close(): Promise<void> }> {
  const { algorithm } = issuer.published;
  const jwk = JSON.parse(issuer.published.jwk) as JWK;
  const joseKey = (await importJWK(jwk, algorithm)) as CryptoKey;
  const key = createPublicKey({ key: { ...jwk }, format: 'jwk' });
  const options = { issuer: BENCH_ISSUER, audience: ECHO_AUDIENCE, algorithms: [algorithm], typ: 'at+jwt' };
  const { decide, close } = await createDecider(issuer);
  const text = (token: string): string => token;
  return {
    close,
    guard: measured({
      given: bearer,
      check: async (metadata) => {
        const { kind } = await decide(metadata);
        if (kind !== 'admitted') throw new Error('a valid token was not admitted');
      },
    }),
    jose: measured({ given: text, check: (token) => jwtVerify(token, joseKey, options) }),
    'node-crypto': measured({
      given: text,
      check: (token) => {
        const end = token.lastIndexOf('.');
        const signature = Buffer.from(token.slice(end + 1), 'base64url');
        const signed = Buffer.from(token.slice(0, end));
        const digest = algorithm === 'EdDSA' ? null : 'sha256';
        const encoded = { key, ...ENCODINGS[algorithm] };
        if (!verify(digest, signed, encoded, signature)) throw new Error('a valid token was refused');
        return undefined;
      },
    }),
  };
}

executeCommands(commands);
