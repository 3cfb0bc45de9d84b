/** Section `peers`: the guard beside common alternatives, all in one server process. */

import { spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import jsonwebtoken from 'jsonwebtoken';
import { findFreePort, isPortFree } from '../../scripts/system/ports.js';
import { makeTemporaryFolder } from '../../scripts/system/temporary-folder.js';
import { holdsWithin } from '../shared/waiting.js';
import type { ArmName } from './arms.js';
import { BenchIssuer } from './issuer.js';
import { atLeast, type BenchContext, type Findings, type Goal, type Section } from './section.js';
import { type ArmFigures, compare, openBench } from './side-by-side.js';
import { HEAD, rowOf } from './warm.js';

const KNOWN_TOKENS = 500;
/** Calls a turn, by the cost of a call, so that all turns take about the same time. */
const CALLS = { fast: 12_000, slow: 3_000, slowest: 1_200 } as const;
const SPEED: Partial<Record<ArmName, keyof typeof CALLS>> = {
  jose: 'slow',
  'jose-redis': 'slow',
  introspection: 'slow',
  'fast-jwt': 'slow',
  jsonwebtoken: 'slowest',
};
const REDIS_START_MS_MAX = 10_000;
const REDIS_POLL_MS = 25;

const JOSE_RATIO_MIN = 4;
const JOSE_REDIS_RATIO_MIN = 5;

export const peers: Section = {
  name: 'peers',
  title: 'the same call, guarded by common alternatives',
  run: measurePeers,
};

async function measurePeers(context: BenchContext): Promise<Findings> {
  const redis = await startRedis();
  const introspection = await openBench(context, { arms: ['bare'], algorithm: 'EdDSA' });
  try {
    const arms: ArmName[] = [
      'bare',
      'bare-again',
      'guard',
      'fast-jwt-cache',
      'naive-cache',
      'fast-jwt',
      'jose',
    ];
    if (redis !== undefined) arms.push('jose-redis');
    arms.push('introspection', 'jsonwebtoken-keyobject', 'jsonwebtoken');
    const secret = 'a secret of the length that most systems use for HMAC';
    const introspectionPort = introspection.ports.bare;
    const bench = await openBench(context, {
      arms,
      algorithm: 'EdDSA',
      secret,
      ...(redis !== undefined && { redisUrl: redis.url }),
      ...(introspectionPort !== undefined && { introspectionPort }),
    });
    try {
      const own = await bench.server.call('tokens', KNOWN_TOKENS);
      const hmac = await hmacTokens(secret);
      const rounds = context.isShort ? 6 : 16;
      const all = await compare(context, bench, {
        arms,
        tokens: (arm) => (arm.startsWith('jsonwebtoken') ? hmac : own),
        rounds,
        callsPerTurn: (arm) => Math.round(CALLS[SPEED[arm] ?? 'fast'] / (context.isShort ? 4 : 1)),
      });
      return findingsOf(all, rounds, redis === undefined);
    } finally {
      await bench.stop();
    }
  } finally {
    await introspection.stop();
    await redis?.stop();
  }
}

function findingsOf(all: ReadonlyMap<ArmName, ArmFigures>, rounds: number, withoutRedis: boolean): Findings {
  const ratioToGuard = (arm: ArmName): number => {
    const [peer, guard] = [all.get(arm), all.get('guard')];
    return (peer?.cpuMicroseconds.median ?? Number.NaN) / (guard?.cpuMicroseconds.median ?? Number.NaN);
  };
  const goals: Goal[] = [
    atLeast('jose on each call, CPU against the guard', ratioToGuard('jose'), JOSE_RATIO_MIN, ' ×'),
    atLeast("fast-jwt's cache, CPU against the guard", ratioToGuard('fast-jwt-cache'), 1, ' ×'),
  ];
  if (!withoutRedis) {
    goals.push(
      atLeast(
        'jose and Redis, CPU against the guard',
        ratioToGuard('jose-redis'),
        JOSE_REDIS_RATIO_MIN,
        ' ×',
      ),
    );
  }
  const figures = [...all].map(([arm, { cpuRatio, throughputRatio, cpuMicroseconds }]) => [
    arm.replaceAll('-', '_'),
    {
      cpu_ratio: cpuRatio.median,
      cpu_ratio_quartiles: [cpuRatio.lower, cpuRatio.upper],
      throughput_ratio: throughputRatio.median,
      cpu_us: cpuMicroseconds.median,
      cpu_ratio_to_guard: ratioToGuard(arm),
    },
  ]);
  return {
    figures: Object.fromEntries(figures),
    goals,
    tables: [
      {
        title: `${rounds} rounds, ${KNOWN_TOKENS} known tokens`,
        rows: [HEAD, ...[...all].map(rowOf)],
      },
    ],
    notes: withoutRedis
      ? [
          'redis-server is not installed: the arm jose-redis was omitted. On Debian: apt-get install redis-server.',
        ]
      : [],
  };
}

async function hmacTokens(secret: string): Promise<string[]> {
  const issuer = await BenchIssuer.create();
  return Array.from({ length: KNOWN_TOKENS }, () =>
    jsonwebtoken.sign(issuer.claims(), secret, { algorithm: 'HS256', keyid: issuer.published.kid }),
  );
}

/** Starts a private Redis on loopback, without persistence; `undefined` when redis-server is not installed. */
async function startRedis(): Promise<{ readonly url: string; stop(): Promise<void> } | undefined> {
  if (spawnSync('redis-server', ['--version']).status !== 0) return undefined;
  const folder = await makeTemporaryFolder();
  const port = await findFreePort();
  const server = spawn(
    'redis-server',
    ['--port', String(port), '--bind', '127.0.0.1', '--save', '', '--appendonly', 'no', '--dir', folder.path],
    { stdio: 'ignore' },
  );
  const stop = async (): Promise<void> => {
    if (server.exitCode === null && server.signalCode === null) {
      const ended = once(server, 'exit');
      server.kill('SIGTERM');
      await ended;
    }
    await folder.remove();
  };
  const listens = await holdsWithin(REDIS_START_MS_MAX, REDIS_POLL_MS, async () => !(await isPortFree(port)));
  if (!listens) {
    await stop();
    throw new Error('redis-server did not start in time');
  }
  return { url: `redis://127.0.0.1:${port}`, stop };
}
