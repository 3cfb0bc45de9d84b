/**
 * When new calls begin. One look at the sockets can bring thousands of them. Begun at once, they would block the event loop
 * for all peers, so only some begin in one turn of the loop, and peers take turns.
 */

import { FairQueue } from './fair-queue.js';

/** Of so many jobs that begin while both classes wait, one is of an unknown network. */
const TURNS = 4;

/** A call that has arrived and has not begun. */
export interface Arrival {
  /** Begins; does nothing when the peer has left. @returns whether it has begun */
  begin(): boolean;
}

/** Where an arrival comes from. */
export interface ArrivalPeer {
  readonly network: string;
  /** The address and port. */
  readonly connection: string;
  /** A valid token has come from the network or on the connection. */
  readonly isKnown: boolean;
}

export class Turns {
  readonly #max: number;
  /** The places of a turn that unknown networks may take without waiting. */
  readonly #unknownMax: number;
  readonly #known = new FairQueue<Arrival>();
  readonly #unknown = new FairQueue<Arrival>();
  readonly #onNextTurn: (callback: () => void) => void;
  #begun = 0;
  #isTurnScheduled = false;
  #place = 0;

  /**
   * @param max - maximum number of arrivals that begin in one turn of the event loop; unknown networks may use three
   *   quarters of them without waiting
   * @param onNextTurn - calls back in the next turn of the event loop, after it has read the sockets
   */
  constructor(max: number, onNextTurn: (callback: () => void) => void = setImmediate) {
    this.#max = max;
    this.#unknownMax = Math.ceil((max * (TURNS - 1)) / TURNS);
    this.#onNextTurn = onNextTurn;
  }

  /** Number of arrivals that wait. */
  get waiting(): number {
    return this.#known.waiting + this.#unknown.waiting;
  }

  /** Begins in this turn, or in a later one. */
  arrive(peer: ArrivalPeer, arrival: Arrival): void {
    const { network, connection, isKnown } = peer;
    if (this.#hasPlace(isKnown)) {
      if (!arrival.begin()) return;
      this.#begun += 1;
      // Turns with few arrivals need no end of their own: their places are counted together.
      if (this.#begun >= this.#unknownMax) this.#scheduleTurn();
      return;
    }
    (isKnown ? this.#known : this.#unknown).push(network, connection, arrival);
    this.#scheduleTurn();
  }

  /** While arrivals of a class wait, its places of this turn are taken, so that none begins before them. */
  #hasPlace(isKnown: boolean): boolean {
    return this.#begun < (isKnown ? this.#max : this.#unknownMax);
  }

  #scheduleTurn(): void {
    if (this.#isTurnScheduled) return;
    this.#isTurnScheduled = true;
    this.#onNextTurn(() => this.#turn());
  }

  #turn(): void {
    this.#isTurnScheduled = false;
    this.#begun = 0;
    try {
      while (this.#begun < this.#max) {
        this.#place = (this.#place + 1) % TURNS;
        const [first, second] =
          this.#place === 0 ? [this.#unknown, this.#known] : [this.#known, this.#unknown];
        const arrival = first.shift() ?? second.shift();
        if (arrival === undefined) return;
        if (arrival.begin()) this.#begun += 1;
      }
    } finally {
      // Also when one of them has thrown: the others must not wait for the next arrival.
      if (this.#begun === this.#max || this.waiting > 0) this.#scheduleTurn();
    }
  }
}
