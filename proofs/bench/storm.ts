/** Section `storm`: latency of calls with known tokens during a flood of new and forged ones. */

import { setTimeout as sleep } from 'node:timers/promises';
import { formatNumber } from '../shared/reporting.js';
import { spreadOf } from '../shared/statistics.js';
import { UNARY_PATH } from './echo.js';
import type { FlowResult } from './load-process.js';
import { atMost, type BenchContext, type Findings, type Section } from './section.js';
import { type Bench, MESSAGE, openBench } from './side-by-side.js';

const KNOWN_TOKENS = 500;
const KNOWN_PER_SECOND = 2_000;
const FORGED_PER_SECOND = 2_000;
const NEW_PER_SECOND = 1_000;
const IN_FLIGHT_MAX = 512;
const PAUSE_MS = 100;
const P99_RATIO_MAX = 2;

export const storm: Section = {
  name: 'storm',
  title: 'known tokens during a flood of new and forged ones',
  run: measureStorm,
};

async function measureStorm(context: BenchContext): Promise<Findings> {
  // The server is not pinned, because verification runs on other threads.
  const bench = await openBench(
    { ...context, cores: { server: undefined, load: undefined } },
    { arms: ['guard'], algorithm: 'EdDSA' },
  );
  try {
    const rounds = context.isShort ? 4 : 15;
    const seconds = context.isShort ? 0.8 : 2;
    await openConnections(bench);
    const known = { connections: 'known', calls: 'known', inFlight: IN_FLIGHT_MAX, until: { seconds } };
    // Makes the known tokens known, and warms V8 up.
    await bench.load.call('run', [{ ...known, inFlight: 16, until: { calls: 10_000 } }]);
    const turns: Record<'quiet' | 'busy' | 'storm', FlowResult>[] = [];
    for (let round = 1; round <= rounds; round += 1) {
      context.signal.throwIfAborted();
      context.progress(`round ${round} of ${rounds}`);
      const [quiet] = await bench.load.call('run', [{ ...known, perSecond: KNOWN_PER_SECOND }]);
      // As many calls as in the storm, all with known tokens: the effect of their number alone.
      const [busy] = await bench.load.call('run', [
        { ...known, perSecond: KNOWN_PER_SECOND },
        {
          connections: 'new',
          calls: 'known',
          inFlight: IN_FLIGHT_MAX,
          until: { seconds: seconds * 2 },
          perSecond: FORGED_PER_SECOND + NEW_PER_SECOND,
        },
      ]);
      await prepareNew(bench, round, Math.ceil(NEW_PER_SECOND * seconds));
      const pouring = { inFlight: IN_FLIGHT_MAX, until: { seconds: seconds * 2 } };
      const [stormy, forged] = await bench.load.call('run', [
        { ...known, perSecond: KNOWN_PER_SECOND },
        { ...pouring, connections: 'forged', calls: 'forged', perSecond: FORGED_PER_SECOND },
        { ...pouring, connections: 'new', calls: `new-${round}`, perSecond: NEW_PER_SECOND },
      ]);
      if (!quiet || !busy || !stormy || quiet.refused + busy.refused + stormy.refused > 0) {
        throw new Error('a known token was refused');
      }
      if (forged === undefined || forged.refused < forged.calls)
        throw new Error('a forged token was admitted');
      turns.push({ quiet, busy, storm: stormy });
      await sleep(PAUSE_MS);
    }
    return findingsOf(turns);
  } finally {
    await bench.stop();
  }
}

function findingsOf(turns: readonly Record<'quiet' | 'busy' | 'storm', FlowResult>[]): Findings {
  const ratio = spreadOf(turns.map(({ storm: own, quiet }) => own.p99Ms / quiet.p99Ms));
  const busyRatio = spreadOf(turns.map(({ storm: own, busy }) => own.p99Ms / busy.p99Ms));
  const times = (name: 'quiet' | 'busy' | 'storm') => ({
    p50: spreadOf(turns.map((turn) => turn[name].p50Ms)).median,
    p99: spreadOf(turns.map((turn) => turn[name].p99Ms)),
  });
  const row = (name: 'quiet' | 'busy' | 'storm', label: string): string[] => {
    const { p50, p99 } = times(name);
    return [
      label,
      formatNumber(p50),
      formatNumber(p99.median),
      `${formatNumber(p99.lower)}–${formatNumber(p99.upper)}`,
    ];
  };
  return {
    figures: {
      p99_ratio: ratio.median,
      p99_ratio_quartiles: [ratio.lower, ratio.upper],
      p99_ratio_to_as_many_known: busyRatio.median,
      p99_ratio_to_as_many_known_quartiles: [busyRatio.lower, busyRatio.upper],
      quiet_p99_ms: times('quiet').p99.median,
      as_many_known_p99_ms: times('busy').p99.median,
      storm_p99_ms: times('storm').p99.median,
      rounds: turns.length,
    },
    goals: [
      atMost('p99 of known tokens in the storm, against the quiet one', ratio.median, P99_RATIO_MAX, ' ×'),
      atMost('… against as many calls with known tokens', busyRatio.median, P99_RATIO_MAX, ' ×'),
    ],
    tables: [
      {
        title: `${KNOWN_PER_SECOND} known a second; the storm: ${FORGED_PER_SECOND} forged and ${NEW_PER_SECOND} new a second`,
        rows: [
          ['', 'p50 ms', 'p99 ms', 'quartiles of p99'],
          row('quiet', 'quiet'),
          row('busy', 'as many more, all known'),
          row('storm', 'storm'),
        ],
      },
    ],
  };
}

async function openConnections(bench: Bench): Promise<void> {
  const { server, load, ports } = bench;
  const port = ports.guard ?? 0;
  const message = Uint8Array.from(MESSAGE);
  const tokens = await server.call('tokens', KNOWN_TOKENS);
  await load.call('prepare', { name: 'known', path: UNARY_PATH, tokens, message });
  // Valid claims with another token's signature: the most work that a forged token can cause.
  const signatureOf = (token = ''): string => token.slice(token.lastIndexOf('.'));
  const forged = tokens.map(
    (token, index) => `${token.slice(0, token.lastIndexOf('.'))}${signatureOf(tokens.at(index - 1))}`,
  );
  await load.call('prepare', { name: 'forged', path: UNARY_PATH, tokens: forged, message });
  await load.call('open', { name: 'known', port, calls: 'known', connections: 4 });
  await load.call('open', { name: 'forged', port, calls: 'forged', connections: 4 });
  await load.call('open', { name: 'new', port, calls: 'known', connections: 4 });
}

async function prepareNew({ server, load }: Bench, round: number, count: number): Promise<void> {
  const tokens = await server.call('tokens', count);
  const message = Uint8Array.from(MESSAGE);
  await load.call('prepare', { name: `new-${round}`, path: UNARY_PATH, tokens, message });
}
