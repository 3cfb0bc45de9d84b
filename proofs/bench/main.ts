/** `npm run bench`: measures what the guard costs, side by side with what people use instead. */

import { readFile, writeFile } from 'node:fs/promises';
import { availableParallelism, cpus, loadavg, totalmem } from 'node:os';
import { Command, Option } from 'commander';
import { SystemError } from '../../scripts/system/system-error.js';
import { type ChartFigures, chartOf } from './chart.js';
import { type BenchContext, type Findings, type Section, textOf } from './section.js';
import { SECTIONS } from './sections.js';
import { chooseCores } from './worker.js';

const GIBIBYTE = 2 ** 30;

const program = new Command('npm run bench --')
  .description('Measures what the guard costs, side by side with what people use instead.')
  .addOption(new Option('--only <section>', 'one section alone').choices(SECTIONS.map(({ name }) => name)))
  .option('--short', 'seconds instead of minutes: enough to see a regression, not to quote a figure', false)
  .option('--json <file>', 'where to write the figures; those of other sections in it are kept')
  .option('--chart <file>', 'draws the peers as SVG; they must be in the figures')
  .option('--markdown', 'prints tables as Markdown', false)
  .parse();
const flags = program.opts<{
  only?: string;
  short: boolean;
  json?: string;
  chart?: string;
  markdown: boolean;
}>();
const interrupted = new AbortController();
for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.on(signal, () => interrupted.abort());

try {
  process.exitCode = await main();
} catch (error) {
  process.exitCode = 1;
  if (interrupted.signal.aborted) console.error('\nInterrupted.');
  else console.error(error instanceof SystemError ? error.message : error);
}

async function main(): Promise<number> {
  const cores = chooseCores();
  const figures: Record<string, unknown> = { ...(await earlierFigures()), machine: machineOf() };
  const context: Omit<BenchContext, 'progress'> = {
    isShort: flags.short,
    earlier: figures,
    cores,
    signal: interrupted.signal,
  };
  const pinned =
    cores.server === undefined ? 'NOT pinned to cores: expect noise' : 'server and load on a core each';
  console.log(`${describeMachine()}; ${pinned}`);
  for (const section of SECTIONS) {
    if (flags.only !== undefined && flags.only !== section.name) continue;
    figures[section.name] = await run(section, context);
    // After each section, so that an interrupted bench has not measured for nothing.
    if (flags.json !== undefined) await writeFile(flags.json, `${JSON.stringify(figures, null, 2)}\n`);
  }
  if (flags.chart !== undefined) {
    const peers = figures['peers'] as ChartFigures | undefined;
    if (peers === undefined) throw new SystemError('There are no figures of section peers to draw.');
    await writeFile(flags.chart, chartOf(peers, describeMachine()));
  }
  return 0;
}

/** What an earlier run has written: a whole bench takes long, so its sections may be run one by one. */
async function earlierFigures(): Promise<object> {
  if (flags.json === undefined) return {};
  const text = await readFile(flags.json, 'utf8').catch(() => '{}');
  return JSON.parse(text) as object;
}

async function run(section: Section, context: Omit<BenchContext, 'progress'>): Promise<object> {
  console.log(`\n${section.name}: ${section.title}`);
  const loadBefore = loadavg()[0] ?? 0;
  const startedMs = performance.now();
  const findings = await section.run({ ...context, progress });
  progress('');
  for (const table of findings.tables) console.log(`\n${textOf(table, flags.markdown)}`);
  console.log(`\n${goalsOf(findings)}`);
  for (const note of findings.notes ?? []) console.log(note);
  const seconds = (performance.now() - startedMs) / 1000;
  console.log(`${seconds.toFixed(0)} s; load average before: ${loadBefore.toFixed(2)}`);
  const { goals, figures } = findings;
  return {
    ...figures,
    short: flags.short,
    time: new Date().toISOString(),
    seconds,
    load_average_before: loadBefore,
    goals: goals.map(({ name, wanted, got, isReached }) => ({ name, wanted, got, reached: isReached })),
  };
}

function goalsOf({ goals }: Findings): string {
  return goals
    .map(({ name, wanted, got, isReached }) => `${isReached ? '✓' : '✗'} ${name}: ${got} (goal ${wanted})`)
    .join('\n');
}

/** What is going on, on a terminal alone: elsewhere it would be most of what is said. */
function progress(text: string): void {
  if (process.stdout.isTTY) process.stdout.write(`\r\u001b[2K${text}`);
}

function machineOf(): Record<string, unknown> {
  return {
    processor: cpus()[0]?.model.trim() ?? 'unknown',
    cores: availableParallelism(),
    memory_gib: Math.round(totalmem() / GIBIBYTE),
    system: `${process.platform} ${process.arch}`,
    node: process.version,
  };
}

function describeMachine(): string {
  const { processor, cores, memory_gib, system, node } = machineOf();
  return `${processor}, ${cores} cores, ${memory_gib} GiB, ${system}, Node ${node}`;
}
