/** Counts attempts and their outcomes, by class. */

import { tableText } from '../shared/reporting.js';

interface Score {
  tried: number;
  refused: number;
  /** Admitted, or given a response that only an admitted caller may get. */
  accepted: number;
  /** Processes that ended, and requests without a response. */
  crashes: number;
  /** Refused with other bytes than attempts of this kind must be. */
  differing: number;
}

/** An attempt with a wrong outcome. */
interface Finding {
  readonly className: string;
  readonly outcome: 'accepted' | 'crash' | 'differing';
  readonly what: string;
}

const FINDINGS_MAX = 200;

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

  /** The first attempts with wrong outcomes. */
  get findings(): readonly Finding[] {
    return this.#findings;
  }

  /** The sum of all classes. */
  get total(): Score {
    const total = emptyScore();
    for (const score of this.#scores.values()) {
      for (const name of Object.keys(total) as (keyof Score)[]) total[name] += score[name];
    }
    return total;
  }

  /** True when nothing was accepted, nothing crashed and no refusal differed. */
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

  /** Counts one attempt as refused when the condition holds, else as accepted. */
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
