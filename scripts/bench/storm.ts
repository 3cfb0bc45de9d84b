/** Section `storm`: what callers with known tokens notice while new and forged ones pour in. */

import { setTimeout as sleep } from 'node:timers/promises';
import { UNARY_PATH } from './echo.js';
import { atMost, type BenchContext, type Findings, rounded, type Section } from './section.js';
import { type Bench, MESSAGE, openBench } from './side-by-side.js';
import { spreadOf } from './statistics.js';

const KNOWN_TOKENS = 500;
const KNOWN_PER_SECOND = 2_000;
const FORGED_PER_SECOND = 2_000;
const NEW_PER_SECOND = 1_000;
const IN_FLIGHT_MAX = 512;
const PAUSE_MS = 100;
const P99_RATIO_MAX = 2;

export const storm: Section = {
  name: 'storm',
  title: 'known tokens while new and forged ones pour in',
  run: measureStorm,
};

async function measureStorm(context: BenchContext): Promise<Findings> {
  // The server is pinned to no core, because verifying runs beside its event loop.
  const bench = await openBench(
    { ...context, cores: { server: undefined, load: undefined } },
    { arms: ['guard'], algorithm: 'EdDSA' },
  );
  try {
    const rounds = context.isShort ? 4 : 15;
    const seconds = context.isShort ? 0.8 : 2;
    await openConnections(bench);
    const known = { connections: 'known', calls: 'known', inFlight: IN_FLIGHT_MAX, until: { seconds } };
    // Known tokens must be known, and V8 must have seen all of it.
    await bench.load.call('run', [{ ...known, inFlight: 16, until: { calls: 10_000 } }]);
    const turns: { quiet: number; storm: number; quietP50: number; stormP50: number; refused: number }[] = [];
    for (let round = 1; round <= rounds; round += 1) {
      context.signal.throwIfAborted();
      context.progress(`round ${round} of ${rounds}`);
      const [quiet] = await bench.load.call('run', [{ ...known, perSecond: KNOWN_PER_SECOND }]);
      await prepareNew(bench, round, Math.ceil(NEW_PER_SECOND * seconds));
      const pouring = { inFlight: IN_FLIGHT_MAX, until: { seconds: seconds * 2 } };
      const [stormy, forged] = await bench.load.call('run', [
        { ...known, perSecond: KNOWN_PER_SECOND },
        { ...pouring, connections: 'forged', calls: 'forged', perSecond: FORGED_PER_SECOND },
        { ...pouring, connections: 'new', calls: `new-${round}`, perSecond: NEW_PER_SECOND },
      ]);
      if (quiet === undefined || stormy === undefined || quiet.refused + stormy.refused > 0) {
        throw new Error('a known token was refused');
      }
      if (forged === undefined || forged.refused < forged.calls)
        throw new Error('a forged token was admitted');
      turns.push({
        quiet: quiet.p99Ms,
        storm: stormy.p99Ms,
        quietP50: quiet.p50Ms,
        stormP50: stormy.p50Ms,
        refused: forged.refused,
      });
      await sleep(PAUSE_MS);
    }
    const ratio = spreadOf(turns.map((turn) => turn.storm / turn.quiet));
    const [quiet, stormy] = [
      spreadOf(turns.map((turn) => turn.quiet)),
      spreadOf(turns.map((turn) => turn.storm)),
    ];
    const p50 = [spreadOf(turns.map((turn) => turn.quietP50)), spreadOf(turns.map((turn) => turn.stormP50))];
    return {
      figures: {
        p99_ratio: ratio.median,
        p99_ratio_quartiles: [ratio.lower, ratio.upper],
        quiet_p99_ms: quiet.median,
        storm_p99_ms: stormy.median,
        quiet_p50_ms: p50[0]?.median,
        storm_p50_ms: p50[1]?.median,
        rounds,
      },
      goals: [atMost('p99 of known tokens in the storm', ratio.median, P99_RATIO_MAX, ' ×')],
      tables: [
        {
          title: `${KNOWN_PER_SECOND} known a second; the storm: ${FORGED_PER_SECOND} forged and ${NEW_PER_SECOND} new a second`,
          rows: [
            ['', 'p50 ms', 'p99 ms', 'quartiles of p99'],
            [
              'quiet',
              rounded(p50[0]?.median ?? 0),
              rounded(quiet.median),
              `${rounded(quiet.lower)}–${rounded(quiet.upper)}`,
            ],
            [
              'storm',
              rounded(p50[1]?.median ?? 0),
              rounded(stormy.median),
              `${rounded(stormy.lower)}–${rounded(stormy.upper)}`,
            ],
          ],
        },
      ],
    };
  } finally {
    await bench.stop();
  }
}

async function openConnections(bench: Bench): Promise<void> {
  const { server, load, ports } = bench;
  const port = ports.guard ?? 0;
  const message = Uint8Array.from(MESSAGE);
  const tokens = await server.call('tokens', KNOWN_TOKENS);
  await load.call('prepare', { name: 'known', path: UNARY_PATH, tokens, message });
  // Good claims under another token's signature: as much work as a forger can make.
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
