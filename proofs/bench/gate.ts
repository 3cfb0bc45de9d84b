/** Section `gate`: the gate as a process beside other proxies, in front of one server, and the end of revoked streams. */

import { openArms } from './gate-arms.js';
import { measureChecks } from './gate-checks.js';
import { compareArms, type GateLoad } from './gate-comparison.js';
import { measureCrowd } from './gate-crowd.js';
import { type Deployment, openDeployment } from './gate-deployment.js';
import { type GateMeasured, gateFindings } from './gate-figures.js';
import { measureRevocations } from './gate-streams.js';
import type { LoadCommands } from './load-process.js';
import type { BenchContext, Findings, Section } from './section.js';
import { startWorker } from './worker.js';

/** Tokens that come in turn on each connection, as from a proxy that many callers share. */
const TOKENS = 128;
const LOG_INS_AT_ONCE = 4;
const STREAMS = 10_000;
const TRIALS = { read: 200, unread: 200, cuts: 5 };
const TRIALS_SHORT = { read: 24, unread: 12, cuts: 1 };

const LOADS: readonly GateLoad[] = [
  {
    name: 'busy',
    title: '64 B, 32 in flight on 4 connections, one token',
    ...{ bytes: 64, connections: 4, inFlight: 32, tokens: 1, rounds: 24, callsPerTurn: 12_000 },
  },
  {
    name: 'tokens',
    title: `64 B, 32 in flight on 4 connections, ${TOKENS} tokens on each`,
    ...{ bytes: 64, connections: 4, inFlight: 32, tokens: TOKENS, rounds: 16, callsPerTurn: 12_000 },
  },
  {
    name: 'idle',
    title: '64 B, 1 in flight',
    ...{ bytes: 64, connections: 1, inFlight: 1, tokens: 1, rounds: 24, callsPerTurn: 3_000 },
  },
  {
    name: 'idle-connections',
    title: '64 B, 1 in flight on each of 4 connections',
    ...{ bytes: 64, connections: 4, inFlight: 4, tokens: 1, rounds: 16, callsPerTurn: 6_000 },
  },
  {
    // What is in flight on a connection must fit into the initial window: the load generator knows no flow control.
    name: 'large',
    title: '16 KB in both directions, 4 in flight on 4 connections',
    ...{ bytes: 16_000, connections: 4, inFlight: 4, tokens: 1, rounds: 16, callsPerTurn: 4_000 },
  },
];
/** By how much a short run makes fewer calls in a turn. */
const SHORTER = 6;
const ROUNDS_SHORT = 6;

export const gate: Section = {
  name: 'gate',
  title: 'the gate beside nginx and haproxy, the end of revoked streams, and ext_authz',
  run: measureGate,
};

async function measureGate(context: BenchContext): Promise<Findings> {
  const deployment = await openDeployment(context);
  try {
    const compared = await compareAll(context, deployment);
    const checks = await measureChecks(context, deployment);
    return gateFindings({ ...compared, ...(await measureStreams(context, deployment)), checks });
  } finally {
    await deployment.stop();
  }
}

async function compareAll(
  context: BenchContext,
  deployment: Deployment,
): Promise<Pick<GateMeasured, 'loads' | 'missing' | 'versions'>> {
  const tokens = await logInOften(deployment);
  const { arms, missing, stop } = await openArms(context, deployment);
  const load = startWorker<LoadCommands>({ program: 'load-process', core: context.cores.load });
  try {
    const loads: GateMeasured['loads'][number][] = [];
    for (const one of LOADS) {
      const kind = context.isShort
        ? { ...one, rounds: ROUNDS_SHORT, callsPerTurn: Math.ceil(one.callsPerTurn / SHORTER) }
        : one;
      const upstreamPid = deployment.upstream.pid;
      loads.push({ kind, turns: await compareArms(context, { load, arms, upstreamPid, kind, tokens }) });
    }
    const proxies = arms.filter(({ version }) => version !== '');
    return {
      loads,
      missing,
      versions: Object.fromEntries(proxies.map(({ name, version }) => [name, version])),
    };
  } finally {
    await load.stop();
    await stop();
  }
}

async function logInOften(deployment: Deployment): Promise<string[]> {
  const tokens: string[] = [];
  while (tokens.length < TOKENS) {
    const sessions = await Promise.all(Array.from({ length: LOG_INS_AT_ONCE }, () => deployment.logIn()));
    tokens.push(...sessions.map(({ token }) => token));
  }
  return tokens;
}

async function measureStreams(
  context: BenchContext,
  deployment: Deployment,
): Promise<Pick<GateMeasured, 'revokedMs' | 'unreadMs' | 'streams' | 'crowd'>> {
  const trials = context.isShort ? TRIALS_SHORT : TRIALS;
  // Not pinned: auth and the broker have no core of their own either.
  const streamGate = await deployment.startGate(undefined, {
    upstream: `127.0.0.1:${deployment.upstream.port}`,
  });
  try {
    const shared = { deployment, gate: streamGate };
    return {
      revokedMs: await measureRevocations(context, { ...shared, reading: 'reads', trials: trials.read }),
      unreadMs: await measureRevocations(context, {
        ...shared,
        reading: 'does not read',
        trials: trials.unread,
      }),
      streams: STREAMS,
      crowd: await measureCrowd(context, { ...shared, streams: STREAMS, times: trials.cuts }),
    };
  } finally {
    await streamGate.stop();
  }
}
