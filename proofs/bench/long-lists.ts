/** Section `long-lists`: the warm path with revocation lists of several sizes. */

import { atMost, type BenchContext, type Findings, type Section } from './section.js';
import { type ArmFigures, compare, openBench } from './side-by-side.js';
import { HEAD, rowOf } from './warm.js';

const SIZES = [1_000, 10_000, 100_000, 1_000_000, 10_000_000];
const SIZES_SHORT = [1_000, 1_000_000];
const KNOWN_TOKENS = 500;

export const longLists: Section = {
  name: 'long-lists',
  title: 'the warm path with long revocation lists',
  run: measureLists,
};

async function measureLists(context: BenchContext): Promise<Findings> {
  const rows: string[][] = [];
  const ratios = new Map<number, ArmFigures>();
  let control = 1;
  const arms = ['bare', 'bare-again', 'guard'] as const;
  for (const revoked of context.isShort ? SIZES_SHORT : SIZES) {
    context.signal.throwIfAborted();
    const progress = (text: string): void => context.progress(`${revoked} entries, ${text}`);
    const bench = await openBench(context, { arms, algorithm: 'EdDSA', revoked });
    try {
      const tokens = await bench.server.call('tokens', KNOWN_TOKENS);
      const rounds = context.isShort ? 6 : 24;
      const all = await compare({ ...context, progress }, bench, {
        arms,
        tokens: () => tokens,
        rounds,
        callsPerTurn: () => (context.isShort ? 3_000 : 6_000),
      });
      for (const [arm, figures] of all) {
        if (arm === 'guard') ratios.set(revoked, figures);
        else if (arm === 'bare-again') control = Math.max(control, spreadAround1(figures));
        if (arm !== 'bare') rows.push(rowOf([`${arm}, ${revoked.toLocaleString('en-US')} entries`, figures]));
      }
    } finally {
      await bench.stop();
    }
  }
  const medians = [...ratios.values()].map(({ cpuRatio }) => cpuRatio.median);
  const growth = Math.max(...medians) / (medians[0] ?? Number.NaN);
  return {
    figures: {
      warm_cpu_ratio: Object.fromEntries([...ratios].map(([size, { cpuRatio }]) => [size, cpuRatio.median])),
      warm_cpu_growth: growth,
      warm_aa_spread: control,
    },
    tables: [{ title: 'the warm path with lists of several sizes', rows: [HEAD, ...rows] }],
    goals: [atMost('warm path, longest list against the shortest', growth, Number(control.toFixed(3)), ' ×')],
  };
}

/** The median distance from 1 of the ratio of two equal arms. */
function spreadAround1({ cpuRatio }: ArmFigures): number {
  return Math.max(cpuRatio.upper, 1 / cpuRatio.lower);
}
