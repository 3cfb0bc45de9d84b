/** `npm run bench`: measures the cost of the guard beside common alternatives. */

import { readFile, writeFile } from 'node:fs/promises';
import { availableParallelism, cpus, loadavg, totalmem } from 'node:os';
import { Command, Option } from 'commander';
import { SystemError } from '../../scripts/system/system-error.js';
import { stopSignal } from '../shared/command-line.js';
import { createProgress, markdownTable, tableText, writeFigures } from '../shared/reporting.js';
import { type ChartFigures, chartOf } from './chart.js';
import type { BenchContext, Findings, Section, Table } from './section.js';
import { SECTIONS } from './sections.js';
import { chooseCores } from './worker.js';

const GIBIBYTE = 2 ** 30;
/** The shortest time between two lines of progress where there is no terminal. */
const LINE_INTERVAL_MS = 10_000;

const program = new Command('npm run bench --')
  .description('Measures the cost of the guard beside common alternatives.')
  .addOption(new Option('--only <section>', 'run one section only').choices(SECTIONS.map(({ name }) => name)))
  .option(
    '--short',
    'seconds instead of minutes: enough to detect a regression, not to quote a figure',
    false,
  )
  .option('--json <file>', 'write the figures to this file; figures of other sections in it are kept')
  .option('--chart <file>', 'write the figures of section peers as an SVG chart to this file')
  .option('--markdown', 'print tables as Markdown', false)
  .parse();
const flags = program.opts<{
  only?: string;
  short: boolean;
  json?: string;
  chart?: string;
  markdown: boolean;
}>();
const stopping = stopSignal();

try {
  process.exitCode = await main();
} catch (error) {
  process.exitCode = 1;
  if (stopping.aborted) console.error('\nInterrupted.');
  else console.error(error instanceof SystemError ? error.message : error);
}

async function main(): Promise<number> {
  const cores = chooseCores();
  const figures: Record<string, unknown> = { ...(await earlierFigures()), machine: machineOf() };
  const context: Omit<BenchContext, 'progress'> = {
    isShort: flags.short,
    earlier: figures,
    cores,
    signal: stopping,
  };
  const pinned =
    cores.server === undefined ? 'NOT pinned to cores: expect noise' : 'server and load on a core each';
  console.log(`${describeMachine()}; ${pinned}`);
  for (const section of SECTIONS) {
    if (flags.only !== undefined && flags.only !== section.name) continue;
    figures[section.name] = await run(section, context);
    // After each section, so that an interrupted run keeps its figures.
    await writeFigures(flags.json, figures);
  }
  if (flags.chart !== undefined) {
    const peers = figures['peers'] as ChartFigures | undefined;
    if (peers === undefined)
      throw new SystemError('There are no figures of section peers to draw: run it first, with --json.');
    await writeFile(flags.chart, chartOf(peers, describeMachine()));
  }
  return 0;
}

/** The figures of earlier runs: a full run takes long, so sections can be run one by one. */
async function earlierFigures(): Promise<object> {
  if (flags.json === undefined) return {};
  const text = await readFile(flags.json, 'utf8').catch(() => '{}');
  return JSON.parse(text) as object;
}

async function run(section: Section, context: Omit<BenchContext, 'progress'>): Promise<object> {
  console.log(`\n${section.name}: ${section.title}`);
  const loadBefore = loadavg()[0] ?? 0;
  const startedMs = performance.now();
  const display = createProgress(process.stdout, { lineIntervalMs: LINE_INTERVAL_MS });
  const findings = await section.run({ ...context, progress: (text) => display.show(0, 0, text) });
  display.end();
  for (const table of findings.tables) console.log(`\n${tableOf(table)}`);
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

function tableOf({ title, rows }: Table): string {
  if (flags.markdown) return `${title}\n\n${markdownTable(rows)}`;
  return `${title}\n${tableText(rows).replaceAll(/^/gm, '  ')}`;
}

function goalsOf({ goals }: Findings): string {
  return goals
    .map(({ name, wanted, got, isReached }) => `${isReached ? '✓' : '✗'} ${name}: ${got} (goal ${wanted})`)
    .join('\n');
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
