/** What was tried, and what came of it. */

/** One check. */
export interface Check {
  readonly peer: string;
  readonly name: string;
  /** What was wrong; empty when nothing was. */
  readonly fault: string;
}

/** Collects checks. */
export class Board {
  readonly checks: Check[] = [];

  /** Two results that must be the same. */
  same(peer: string, name: string, expected: unknown, actual: unknown): void {
    const [wanted, got] = [JSON.stringify(expected), JSON.stringify(actual)];
    this.checks.push({ peer, name, fault: wanted === got ? '' : `expected ${wanted}, got ${got}` });
  }

  holds(peer: string, name: string, isTrue: boolean, otherwise: string): void {
    this.checks.push({ peer, name, fault: isTrue ? '' : otherwise });
  }

  /** A part that has thrown. */
  failed(peer: string, error: unknown): void {
    this.checks.push({
      peer,
      name: 'could be carried out',
      fault: error instanceof Error ? error.message : String(error),
    });
  }

  get faults(): readonly Check[] {
    return this.checks.filter(({ fault }) => fault !== '');
  }

  of(peer: string): readonly Check[] {
    return this.checks.filter((check) => check.peer === peer);
  }
}
