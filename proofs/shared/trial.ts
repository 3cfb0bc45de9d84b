/** A proof in parts, with programs of others: a part whose program cannot be had is left out, and named. */

import { Board } from './board.js';
import { stopSignal } from './command-line.js';
import type { Peer } from './programs.js';
import { createProgress } from './reporting.js';

/** Parses an option whose value is some of these names, separated by commas. */
export function namesAmong<Name extends string>(names: readonly Name[]): (text: string) => Name[] {
  return (text) =>
    text.split(',').map((word) => {
      const found = names.find((name) => name === word.trim());
      if (found === undefined) throw new Error(`expected some of ${names.join(', ')}, got "${word}"`);
      return found;
    });
}

/** What a proof has done so far. */
export class Trial {
  readonly board = new Board();
  /** The programs that were looked for, had or not. */
  readonly peers: Peer<unknown>[] = [];
  /** Aborted when this process is asked to stop. */
  readonly stopping = stopSignal();
  readonly #progress = createProgress(process.stdout);

  /** Shows what is being done. @throws Error when this process was asked to stop */
  show(text: string): void {
    this.stopping.throwIfAborted();
    this.#progress.show(0, 0, text);
  }

  /** Ends the display. */
  end(): void {
    this.#progress.end();
  }

  /** Looks for a program, and notes whether it can be had. */
  async peer<Value>(doing: string, get: () => Promise<Peer<Value>>): Promise<Peer<Value>> {
    this.show(doing);
    const had = await get();
    this.peers.push(had);
    return had;
  }

  /** Carries out a part. An error is a failed check. */
  async part(name: string, work: () => Promise<void>): Promise<void> {
    this.show(name);
    await work().catch((error: unknown) => this.board.failed(name, error));
  }

  /** Prints what was wrong, and how many checks held. */
  printFaults(shownMax = Number.POSITIVE_INFINITY): void {
    const { faults, checks } = this.board;
    for (const { peer, name, fault } of faults.slice(0, shownMax))
      console.log(`\n${peer}: ${name}\n  ${fault}`);
    console.log(`\n${checks.length - faults.length} of ${checks.length} checks held.`);
  }

  /**
   * @param allowMissing - whether programs may be missing
   * @returns whether what was checked held, and what was not checked is allowed to be missing
   */
  holds(allowMissing: boolean): boolean {
    const isComplete = this.peers.every(({ had }) => had);
    const { checks, faults } = this.board;
    return faults.length === 0 && (isComplete ? checks.length > 0 : allowMissing);
  }
}
