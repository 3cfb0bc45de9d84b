/** What a flood may do at most, and how its figures are reported. */

import { formatNumber, type Rows } from '../shared/reporting.js';
import { roundTo } from '../shared/statistics.js';
import { HONEST_CLASSES, type HonestClass } from './honest-traffic.js';
import { allowedMs, type ClassFigures, type FloodResult } from './run-flood.js';

const RSS_GROWTH_MAX_MB = 50;
const BLOCK_MAX_MS = 50;
const RECOVERY_MAX_SECONDS = 5;
/** From this share of the time without a processor on, calls are slow because the machine is too small for the flood. */
const STARVED_SHARE = 0.2;
/** So many times as long as it may an honest call takes at most for want of a processor. More has another cause. */
const STARVED_RATIO_MAX = 4;
/** Memory that the heap keeps after it was used counts up to so many times the limit, if no more than the other is in use. */
const UNUSED_RATIO_MAX = 2;
const HELD_GROWTH_MAX_MB = 10;
const REASON_CHARACTERS_MAX = 160;
const REFUSALS_SHOWN_MAX = 3;

/** The figures of one flood, as written to the file. */
export interface FloodFigures {
  readonly attacker: string;
  /** p99 of the honest class that is farthest above what it may take. */
  readonly honest_p99_ms: number;
  /** The same, divided by the p99 of that class before the flood. */
  readonly honest_p99_ratio: number;
  readonly honest_class: HonestClass;
  /** The largest growth of resident memory of one service. */
  readonly rss_mb: number;
  readonly block_ms: number;
  /** The longest full collection of the heap of one service; no part of `block_ms`. */
  readonly collection_ms: number;
  readonly log_lines: number;
  readonly stale: number;
  readonly exits: number;
  /** Failed honest calls, without those that name a limit. */
  readonly refused_honest: number;
  readonly limited_honest: number;
  /** -1 when all was not as before within the time. */
  readonly recovered_s: number;
  readonly load_average: number;
  /** The largest share of the time in which one service could run and had no processor. */
  readonly starved: number;
  readonly honest: FloodResult['honest'];
  readonly refusals: FloodResult['refused'];
  readonly services: FloodResult['services'];
  readonly flood: FloodResult['tally'];
  readonly violations: readonly string[];
  /** Why the violations stay; absent where there is none, or no reason for it. */
  readonly reason?: string;
}

/** Compares one flood with the limits. */
export function figuresOf(result: FloodResult): FloodFigures {
  const { honest, services } = result;
  const worst =
    HONEST_CLASSES.toSorted((one, other) => excess(honest[other]) - excess(honest[one]))[0] ?? 'known';
  const { quiet, meanwhile } = honest[worst];
  const highest = (value: (reading: FloodResult['services'][number]) => number): number =>
    Math.max(0, ...services.map(value));
  const figures = {
    attacker: result.flood.attacker,
    honest_p99_ms: meanwhile.p99,
    honest_p99_ratio: roundTo(meanwhile.p99 / Math.max(0.1, quiet.p99), 2),
    honest_class: worst,
    rss_mb: roundTo(
      highest(({ rssGrowthMb }) => rssGrowthMb),
      1,
    ),
    block_ms: roundTo(
      highest(({ blockMs }) => blockMs),
      1,
    ),
    collection_ms: roundTo(
      highest(({ collectionMs }) => collectionMs),
      1,
    ),
    log_lines: services.reduce((sum, { logLines }) => sum + logLines, 0),
    stale: result.stale,
    exits: services.reduce((sum, { exits }) => sum + exits, 0),
    refused_honest: Object.values(result.refused).reduce((sum, count) => sum + count, 0),
    limited_honest: result.limited,
    recovered_s: result.recoveredSeconds === undefined ? -1 : roundTo(result.recoveredSeconds, 1),
    load_average: roundTo(result.load, 1),
    starved: roundTo(
      highest(({ starved }) => starved),
      2,
    ),
    honest,
    refusals: result.refused,
    services,
    flood: result.tally,
  };
  const violations = violationsOf(result, figures);
  const notReached = isInexcusable(result, figures)
    ? undefined
    : (measuredReason(result, figures, violations) ?? result.flood.notReached);
  return {
    ...figures,
    violations,
    ...(violations.length > 0 && notReached !== undefined && { reason: notReached }),
  };
}

/** What no reason excuses: it would be a way to stop the system. */
function isInexcusable(
  { recoveredSeconds, broken, other }: FloodResult,
  { stale, exits, refused_honest }: Pick<FloodFigures, 'stale' | 'exits' | 'refused_honest'>,
): boolean {
  if (stale > 0 || exits > 0 || refused_honest > 0) return true;
  return recoveredSeconds === undefined || broken !== undefined || other.length > 0;
}

/** How many times as long a class takes as it may. */
function excess({ quiet, meanwhile }: ClassFigures): number {
  return meanwhile.p99 / allowedMs(quiet.p99);
}

/** What explains slow calls and grown memory by measurements of the same run, if that is all, and all is explained. */
function measuredReason(
  result: FloodResult,
  figures: Pick<FloodFigures, 'starved' | 'collection_ms' | 'rss_mb'>,
  violations: readonly string[],
): string | undefined {
  const { honest } = result;
  const slow = slowClasses(honest);
  const hasGrown = figures.rss_mb > RSS_GROWTH_MAX_MB;
  if (violations.length !== slow.length + (hasGrown ? 1 : 0)) return undefined;
  const reasons = new Set<string>();
  for (const kind of slow) {
    const { quiet, meanwhile } = honest[kind];
    if (meanwhile.p99 - figures.collection_ms <= allowedMs(quiet.p99)) {
      reasons.add(`A full collection of a heap took ${formatNumber(figures.collection_ms)} ms.`);
    } else if (figures.starved >= STARVED_SHARE && excess(honest[kind]) <= STARVED_RATIO_MAX) {
      reasons.add(
        'Attacker, honest callers and services fill the processors of this machine: a service that could run had none for ' +
          `${Math.round(100 * figures.starved)} % of the time.`,
      );
    } else return undefined;
  }
  for (const { service, rssGrowthMb, heldGrowthMb } of hasGrown ? result.services : []) {
    if (rssGrowthMb <= RSS_GROWTH_MAX_MB) continue;
    const isUnused =
      rssGrowthMb <= UNUSED_RATIO_MAX * RSS_GROWTH_MAX_MB &&
      heldGrowthMb !== undefined &&
      heldGrowthMb <= HELD_GROWTH_MAX_MB;
    if (!isUnused) return undefined;
    reasons.add(
      `After its last full collection the heap of ${service} had ${formatNumber(Math.abs(heldGrowthMb))} MB ` +
        `${heldGrowthMb < 0 ? 'less' : 'more'} in use than before the flood; it keeps what it has grown to.`,
    );
  }
  return [...reasons].join(' ') || undefined;
}

function slowClasses(honest: FloodResult['honest']): HonestClass[] {
  return HONEST_CLASSES.filter((kind) => excess(honest[kind]) > 1);
}

function violationsOf(result: FloodResult, figures: Omit<FloodFigures, 'violations'>): string[] {
  const violations = slowClasses(result.honest).map((kind) => {
    const { quiet, meanwhile } = result.honest[kind];
    return `${kind} p99 ${formatNumber(quiet.p99)} → ${formatNumber(meanwhile.p99)} ms`;
  });
  if (figures.rss_mb > RSS_GROWTH_MAX_MB)
    violations.push(`${largest(result)} grew by ${formatNumber(figures.rss_mb)} MB`);
  if (figures.block_ms > BLOCK_MAX_MS)
    violations.push(`an event loop was blocked for ${formatNumber(figures.block_ms)} ms`);
  if (figures.stale > 0) violations.push(`stale ${figures.stale} times`);
  if (figures.exits > 0) violations.push(`${figures.exits} processes ended`);
  if (figures.refused_honest > 0)
    violations.push(`${figures.refused_honest} honest calls failed: ${refusalsOf(result)}`);
  if (result.recoveredSeconds === undefined) violations.push('did not recover');
  else if (result.recoveredSeconds > RECOVERY_MAX_SECONDS) {
    violations.push(`recovered after ${formatNumber(result.recoveredSeconds)} s`);
  }
  if (result.broken !== undefined) violations.push(result.broken);
  violations.push(...result.other);
  return violations;
}

function largest({ services }: FloodResult): string {
  return services.toSorted((one, other) => other.rssGrowthMb - one.rssGrowthMb)[0]?.service ?? 'a service';
}

function refusalsOf({ refused }: FloodResult): string {
  return Object.entries(refused)
    .sort(([, one], [, other]) => other - one)
    .slice(0, REFUSALS_SHOWN_MAX)
    .map(([reason, count]) => `${count} × ${reason}`)
    .join(', ');
}

/** The table of all floods. */
export function tableOf(all: Readonly<Record<string, FloodFigures>>): Rows {
  const header = [
    'flood',
    'by',
    'worst',
    'quiet p99',
    'p99 ms',
    '×',
    'RSS +MB',
    'block ms',
    'GC ms',
    'log lines',
    'stale',
  ];
  return [
    [...header, 'exits', 'refused', 'limited', 'back s', 'load', 'starved', 'verdict'],
    ...Object.entries(all).map(([name, figures]) => [
      name,
      figures.attacker,
      figures.honest_class,
      formatNumber(figures.honest[figures.honest_class].quiet.p99),
      formatNumber(figures.honest_p99_ms),
      formatNumber(figures.honest_p99_ratio),
      formatNumber(figures.rss_mb),
      formatNumber(figures.block_ms),
      formatNumber(figures.collection_ms),
      String(figures.log_lines),
      String(figures.stale),
      String(figures.exits),
      String(figures.refused_honest),
      String(figures.limited_honest),
      figures.recovered_s < 0 ? 'never' : formatNumber(figures.recovered_s),
      formatNumber(figures.load_average),
      `${Math.round(100 * figures.starved)} %`,
      verdictOf(figures),
    ]),
  ];
}

function verdictOf({ violations, reason }: FloodFigures): string {
  if (violations.length === 0) return 'holds';
  return reason === undefined ? 'VIOLATED' : 'not reached';
}

/** Whether the flood broke no limit, or only for a reason that is known. */
export function isAccepted({ violations, reason }: FloodFigures): boolean {
  return violations.length === 0 || reason !== undefined;
}

/**
 * Whether nothing but slow honest calls broke a limit, for no known reason. Then a second run decides: of a class with a call
 * every half second, the p99 of one run is its slowest call, which a pause of the machine explains as well.
 */
export function needsSecondRun(figures: FloodFigures): boolean {
  const { violations, honest } = figures;
  return !isAccepted(figures) && slowClasses(honest).length === violations.length;
}

/** One line for each flood that broke something, with the reason if it is known. */
export function reasonsOf(all: Readonly<Record<string, FloodFigures>>): string[] {
  return Object.entries(all)
    .filter(([, { violations }]) => violations.length > 0)
    .map(
      ([name, { violations, reason }]) =>
        `${name}: ${violations.map((one) => one.slice(0, REASON_CHARACTERS_MAX)).join('; ')}${reason === undefined ? '' : `. ${reason}`}`,
    );
}
