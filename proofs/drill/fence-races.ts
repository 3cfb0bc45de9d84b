/**
 * Races of transactions with the revocation of their tokens, as many as wanted: two instances of a service commit rows
 * behind its fence, while one call of Revoke after the other revokes the tokens of all transactions that are under way.
 * Once Revoke has returned FENCED, the database commits none of them.
 */

import { createRandom } from '../shared/random.js';
import { createProgress } from '../shared/reporting.js';
import { quantile } from '../shared/statistics.js';
import { nowMs } from '../shared/waiting.js';
import { type BatchOutcome, chooseFault, connectRaceClient, runBatch } from './race-batch.js';
import { buildRaceEnvironment } from './race-environment.js';
import { OUTCOMES, type Outcome } from './race-service.js';

/** Tokens of one call of Revoke, half of them at each instance. */
const TOKENS = 40;
const PROGRESS_INTERVAL_MS = 5_000;
/** A run in which fewer of the races end one way or the other proves nothing. */
const COMMITTED_SHARE_MIN = 0.1;
const REFUSED_SHARE_MIN = 0.1;
/** Races that end in another way than by the fence, at most. */
const FAILED_SHARE_MAX = 0.01;

/** Figures of the races. */
export interface RaceFigures {
  readonly drill: 'fence';
  readonly seed: number;
  /** Calls of Revoke, and the tokens that they revoked. */
  readonly batches: number;
  readonly tokens: number;
  /** Transactions that were under way at the same time as the Revoke of their token. */
  readonly races: number;
  /** How they ended. Those that were committed were so before Revoke had returned, unless they are late. */
  readonly outcomes: Readonly<Record<Outcome, number>>;
  /** Transactions that ended before Revoke was called, and those that began after it had returned: no races. */
  readonly before: number;
  readonly after: number;
  /** Calls of Revoke that did not return FENCED. Their transactions do not count as races. */
  readonly unfenced: number;
  /** Commits after Revoke had returned FENCED. */
  readonly late_commits: number;
  /** Differences between the rows of the database and the commits that the instances report. */
  readonly miscounted: number;
  /** Late commits, differences, and one for each share of the races that is out of its limits. */
  readonly violations: number;
  readonly revoke_ms: { readonly p50: number; readonly p99: number; readonly max: number };
  readonly faults: Readonly<Record<string, number>>;
  readonly seconds: number;
}

/** Options of {@link raceFence}. */
interface RaceOptions {
  readonly races: number;
  readonly seed: number;
  /** Only faults whose names contain this text. */
  readonly faults: string;
  readonly signal: AbortSignal;
}

/** Runs races until there were so many, and prints its progress. */
export async function raceFence({ races, seed, faults, signal }: RaceOptions): Promise<RaceFigures> {
  const startedMs = nowMs();
  const random = createRandom(seed);
  const progress = createProgress(process.stdout, { lineIntervalMs: PROGRESS_INTERVAL_MS });
  progress.show(0, races, 'starting the system');
  const environment = await buildRaceEnvironment({
    signal,
    onProgress: (text) => progress.show(0, races, text),
  });
  const clients = environment.instances.map(({ address }) => connectRaceClient(address));
  const totals = new Totals();
  try {
    while (totals.races < races && !signal.aborted) {
      const fault = chooseFault(random, faults);
      const batch = totals.batches;
      const tokens = environment.mint(TOKENS);
      totals.add(await runBatch(environment, { clients, batch, tokens, random, fault }));
      const perSecond = Math.round(totals.races / ((nowMs() - startedMs) / 1_000));
      const committed = Math.round(totals.shareOf('committed') * 100);
      progress.show(
        Math.min(totals.races, races),
        races,
        `races, ${committed} % committed, ${totals.late} late, ${perSecond}/s (${fault})`,
      );
    }
    progress.end();
  } finally {
    for (const client of clients) client.close();
    await environment.stop();
  }
  const figures = totals.figures(seed, Math.round((nowMs() - startedMs) / 1_000));
  print(figures, totals.problems());
  return figures;
}

/** The sums of all batches. */
class Totals {
  batches = 0;
  races = 0;
  late = 0;
  #unfenced = 0;
  #before = 0;
  #after = 0;
  #miscounted = 0;
  readonly #outcomes: Record<Outcome, number> = {
    committed: 0,
    TOKEN_REVOKED: 0,
    REVOCATION_STATE_STALE: 0,
    failed: 0,
  };
  readonly #faults: Record<string, number> = {};
  readonly #revokeMs: number[] = [];

  add(outcome: BatchOutcome): void {
    const { fault, isFenced, revokeMs, races, before, after, commits, commitsAtReturn } = outcome;
    this.batches += 1;
    this.#faults[fault] = (this.#faults[fault] ?? 0) + 1;
    this.#revokeMs.push(revokeMs);
    const all = [...before, ...races, ...after];
    const reported = all.filter(({ outcome }) => outcome === 'committed').length;
    // The answer to a COMMIT may be lost.
    const unclear = all.filter(({ outcome }) => outcome === 'failed').length;
    this.#miscounted += Math.max(0, reported - commits, commits - reported - unclear);
    if (!isFenced) {
      this.#unfenced += 1;
      return;
    }
    this.races += races.length;
    this.#before += before.length;
    this.#after += after.length;
    this.late += commits - commitsAtReturn;
    for (const race of races) this.#outcomes[race.outcome] += 1;
  }

  shareOf(outcome: Outcome): number {
    return this.races === 0 ? 0 : this.#outcomes[outcome] / this.races;
  }

  /** What is wrong with the run. */
  problems(): string[] {
    const refused = this.shareOf('TOKEN_REVOKED') + this.shareOf('REVOCATION_STATE_STALE');
    const percent = (share: number): string => `${(share * 100).toFixed(1)} %`;
    const problems: string[] = [];
    if (this.shareOf('committed') < COMMITTED_SHARE_MIN) {
      problems.push(
        `expected ${percent(COMMITTED_SHARE_MIN)} of the races to be committed, got ${percent(this.shareOf('committed'))}`,
      );
    }
    if (refused < REFUSED_SHARE_MIN) {
      problems.push(
        `expected ${percent(REFUSED_SHARE_MIN)} of the races to be refused at the fence, got ${percent(refused)}`,
      );
    }
    if (this.shareOf('failed') > FAILED_SHARE_MAX) {
      problems.push(
        `expected at most ${percent(FAILED_SHARE_MAX)} of the races to fail otherwise, got ${percent(this.shareOf('failed'))}`,
      );
    }
    return problems;
  }

  figures(seed: number, seconds: number): RaceFigures {
    const ms = (share: number): number =>
      this.#revokeMs.length === 0 ? 0 : Math.round(quantile(this.#revokeMs, share));
    return {
      drill: 'fence',
      seed,
      batches: this.batches,
      tokens: this.batches * TOKENS,
      races: this.races,
      outcomes: this.#outcomes,
      before: this.#before,
      after: this.#after,
      unfenced: this.#unfenced,
      late_commits: this.late,
      miscounted: this.#miscounted,
      violations: this.late + this.#miscounted + this.problems().length,
      revoke_ms: { p50: ms(0.5), p99: ms(0.99), max: ms(1) },
      faults: this.#faults,
      seconds,
    };
  }
}

function print(figures: RaceFigures, problems: readonly string[]): void {
  const { races, batches, seconds, late_commits: late, revoke_ms: revoke } = figures;
  console.log(
    `\n${races} races with ${batches} calls of Revoke in ${seconds} s, ${late} commits after Revoke had returned FENCED`,
  );
  console.log(OUTCOMES.map((outcome) => `${outcome}: ${figures.outcomes[outcome]}`).join(', '));
  console.log(
    `besides: ${figures.before} transactions ended before Revoke, ${figures.after} began after it had returned; ${figures.unfenced} calls were not fenced, ${figures.miscounted} commits miscounted`,
  );
  console.log(`Revoke took ${revoke.p50} ms (p50), ${revoke.p99} ms (p99), at most ${revoke.max} ms`);
  for (const problem of problems) console.error(problem);
  if (figures.violations === 0) console.log('No violation.');
  else console.error(`${figures.violations} violations`);
}
