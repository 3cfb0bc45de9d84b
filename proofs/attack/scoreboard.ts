/** What was tried, and what came of it, by class. */

import { tableText } from '../shared/reporting.js';

/** The figures of one class. */
export interface Score {
  tried: number;
  refused: number;
  /** Admitted, or told something that only who is admitted may be told. */
  accepted: number;
  /** A process that ended, or a request that was never answered. */
  crashes: number;
  /** Refused, but not in the very bytes in which such attempts are refused. */
  differing: number;
}

/** An attempt that did not come out as it must. */
export interface Finding {
  readonly className: string;
  readonly outcome: 'accepted' | 'crash' | 'differing';
  readonly what: string;
}

const FINDINGS_MAX = 200;

/** Counts. */
export class Scoreboard {
  readonly #scores = new Map<string, Score>();
  readonly #findings: Finding[] = [];
  #tried = 0;

  get tried(): number {
    return this.#tried;
  }

  get classes(): ReadonlyMap<string, Score> {
    return this.#scores;
  }

  /** The first of what went wrong. */
  get findings(): readonly Finding[] {
    return this.#findings;
  }

  /** All classes together. */
  get total(): Score {
    const total = emptyScore();
    for (const score of this.#scores.values()) {
      for (const name of Object.keys(total) as (keyof Score)[]) total[name] += score[name];
    }
    return total;
  }

  /** Nothing was accepted, nothing crashed, nothing told itself apart. */
  get held(): boolean {
    const { accepted, crashes, differing } = this.total;
    return accepted + crashes + differing === 0;
  }

  refused(className: string): void {
    this.#score(className).refused += 1;
  }

  accepted(className: string, what: string): void {
    this.#score(className).accepted += 1;
    this.#note({ className, outcome: 'accepted', what });
  }

  crashed(className: string, what: string): void {
    this.#score(className).crashes += 1;
    this.#note({ className, outcome: 'crash', what });
  }

  differs(className: string, what: string): void {
    this.#score(className).differing += 1;
    this.#note({ className, outcome: 'differing', what });
  }

  /** Counts one attempt that is judged by a condition alone. */
  holds(className: string, condition: boolean, what: string): void {
    if (condition) this.refused(className);
    else this.accepted(className, what);
  }

  #score(className: string): Score {
    let score = this.#scores.get(className);
    if (score === undefined) {
      score = emptyScore();
      this.#scores.set(className, score);
    }
    score.tried += 1;
    this.#tried += 1;
    return score;
  }

  #note(finding: Finding): void {
    if (this.#findings.length < FINDINGS_MAX) this.#findings.push(finding);
  }
}

function emptyScore(): Score {
  return { tried: 0, refused: 0, accepted: 0, crashes: 0, differing: 0 };
}

/** The scores of all classes, and their total. */
export function tableOf(scores: ReadonlyMap<string, Score>, total: Score): string {
  const columns = ['tried', 'refused', 'accepted', 'crashes', 'differing'] as const;
  const rows = [...scores, ['total', total] as const].map(([name, score]) => [
    name,
    ...columns.map((column) => String(score[column])),
  ]);
  return tableText([['', ...columns], ...rows]);
}
