/** `portcullis instances` and `portcullis top`. */

import { readFile } from 'node:fs/promises';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Command } from 'commander';
import { type Instance, RevocationServiceClient } from '../../gen/portcullis/revocation/v1/revocation.js';
import type { Cli } from '../cli.js';
import { instanceName, PAGE_SIZE } from '../directory.js';
import { listOf, secondsOf } from '../options.js';
import { type Scraped, scrape } from '../scraped-metrics.js';
import type { Session } from '../session.js';
import { type Cell, durationText, millisecondsOf, tableOf, timeText } from '../tables.js';
import { interruptOf, type Terminal, writeLine, writeResult } from '../terminal.js';

/** Default time between two readings of `top`, in seconds. */
const INTERVAL_SECONDS = 2;

/** Moves the cursor to the upper left corner and clears what follows. */
const CLEAR = '\u001b[H\u001b[J';

export function addInstanceCommands(program: Command, cli: Cli): void {
  program
    .command('instances')
    .description(
      'list the instances that enforce revocations: where they run, and whether they are up to date',
    )
    .action(() => printInstances(cli));
  program
    .command('top')
    .description('watch the instances: lag, lease, decisions, refusals by reason, size of the list')
    .option(
      '--metrics <urls>',
      'ops addresses of instances, separated by commas, such as http://127.0.0.1:51052/metrics',
      listOf,
      [],
    )
    .option('--interval <seconds>', 'time between two readings', secondsOf, INTERVAL_SECONDS)
    .option('--once', 'print one reading, and end')
    .action((options: TopOptions) => top(cli, options));
}

/** All instances that auth lists. */
export async function instancesOf(session: Session): Promise<readonly Instance[]> {
  const client = session.client(RevocationServiceClient);
  const found: Instance[] = [];
  let pageToken = '';
  do {
    const page = await session.call(client.listInstances.bind(client), { pageSize: PAGE_SIZE, pageToken });
    found.push(...page.instances);
    pageToken = page.nextPageToken;
  } while (pageToken !== '');
  return found;
}

/** What an instance does, in a word: `serving`, `stale` when it refuses calls, `stopped` when it has said so. */
export function standingOf(instance: Instance): 'serving' | 'stale' | 'stopped' {
  if (instance.left) return 'stopped';
  return (millisecondsOf(instance.leaseLeft) ?? 0) > 0 ? 'serving' : 'stale';
}

function standingCell(instance: Instance): Cell {
  const text = standingOf(instance);
  return { text, tone: text === 'serving' ? 'good' : text === 'stale' ? 'bad' : 'warning' };
}

async function printInstances(cli: Cli): Promise<void> {
  await cli.inSession(async (session, terminal) => {
    const instances = await instancesOf(session);
    const named = instances.map((one) => ({ name: instanceName(one), standing: standingOf(one), ...one }));
    writeResult(terminal, { instances: named }, () =>
      tableOf(
        ['INSTANCE', 'STATE', 'LAG', 'LEASE', 'LAST SYNC', 'VERSION', 'STARTED'],
        named.map((one) => [
          one.name,
          standingCell(one),
          String(one.lag),
          durationText(millisecondsOf(one.leaseLeft)),
          `${durationText(millisecondsOf(one.lastSyncAge))} ago`,
          one.description?.version ?? '',
          timeText(one.description?.startTime),
        ]),
        terminal,
      ),
    );
  });
}

interface TopOptions {
  readonly metrics: readonly string[];
  readonly interval: number;
  readonly once?: true;
}

async function top(cli: Cli, { metrics, interval, once }: TopOptions): Promise<void> {
  await cli.inSession(async (session, terminal) => {
    const interrupt = interruptOf(terminal);
    const { caFile } = session.context;
    // The ops addresses have certificates of the same authority as auth.
    const ca = caFile === undefined || metrics.length === 0 ? undefined : await readFile(caFile);
    let before: readonly Scraped[] = [];
    while (!interrupt.aborted) {
      const [instances, scraped] = await Promise.all([
        instancesOf(session),
        Promise.all(metrics.map((url) => scrape(url, ca))),
      ]);
      writeReading(terminal, instances, ratesOf(before, scraped));
      before = scraped;
      if (once === true) return;
      await sleep(interval * 1000, undefined, { signal: interrupt }).catch(() => undefined);
    }
  });
}

/** What one ops address says, with the rates since the reading before. */
interface Rates {
  readonly url: string;
  readonly problem: string;
  readonly decisionsPerSecond: number | undefined;
  readonly refusals: readonly (readonly [reason: string, perSecond: number])[];
  readonly entries: number | undefined;
}

function ratesOf(before: readonly Scraped[], now: readonly Scraped[]): readonly Rates[] {
  return now.map((one) => {
    const former = before.find(({ url, problem }) => url === one.url && problem === '');
    const seconds = former === undefined ? 0 : (one.atMs - former.atMs) / 1000;
    const perSecond = (outcome: string): number =>
      seconds <= 0
        ? 0
        : ((one.decisions.get(outcome) ?? 0) - (former?.decisions.get(outcome) ?? 0)) / seconds;
    const outcomes = [...one.decisions.keys()];
    return {
      url: one.url,
      problem: one.problem,
      decisionsPerSecond: seconds <= 0 ? undefined : outcomes.reduce((sum, name) => sum + perSecond(name), 0),
      refusals: outcomes
        .filter((name) => name !== 'ADMITTED')
        .map((name) => [name, perSecond(name)] as const)
        .filter(([, rate]) => rate > 0)
        .sort(([, a], [, b]) => b - a),
      entries: one.entries,
    };
  });
}

function writeReading(terminal: Terminal, instances: readonly Instance[], rates: readonly Rates[]): void {
  const named = instances.map((one) => ({ name: instanceName(one), standing: standingOf(one), ...one }));
  const text = (): string => {
    const list = tableOf(
      ['INSTANCE', 'STATE', 'LAG', 'LEASE', 'LAST SYNC'],
      named.map((one) => [
        one.name,
        standingCell(one),
        String(one.lag),
        durationText(millisecondsOf(one.leaseLeft)),
        durationText(millisecondsOf(one.lastSyncAge)),
      ]),
      terminal,
    );
    if (rates.length === 0) return list;
    const calls = tableOf(
      ['METRICS OF', 'DECISIONS/S', 'LIST', 'REFUSALS/S'],
      rates.map((one) => [
        one.url,
        one.problem === '' ? (one.decisionsPerSecond?.toFixed(1) ?? '…') : { text: one.problem, tone: 'bad' },
        one.entries === undefined ? '' : String(one.entries),
        one.refusals.map(([reason, rate]) => `${reason} ${rate.toFixed(1)}`).join(', '),
      ]),
      terminal,
    );
    return `${list}\n\n${calls}`;
  };
  if (terminal.columns !== undefined && !terminal.json) terminal.output.write(CLEAR);
  writeLine(terminal, { time: new Date(), instances: named, rates }, text);
}
