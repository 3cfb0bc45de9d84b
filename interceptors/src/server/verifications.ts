/** The signatures that wait for verification: a fair queue, in which strangers cannot take what known networks need. */

import { networkOfPeer } from '../wire/networks.js';
import { FairQueue } from './fair-queue.js';

/** Maximum number of verifications that wait or run for known networks, and for unknown ones. */
export const VERIFICATIONS_MAX = 512;

/** The part of them that one network may cause. */
export const VERIFICATIONS_PER_NETWORK_MAX = 256;

/**
 * Maximum number of calls of known networks, and of unknown ones, that wait for a verification which an earlier call with
 * the same token has caused.
 */
export const JOINED_CALLS_MAX = 4096;

/** The part of them that one network may have: more than one service may have in progress by default. */
export const JOINED_CALLS_PER_NETWORK_MAX = 2048;

/** Of four verifications that start while both classes wait, one is for an unknown network. */
const TURNS = 4;

/** One waiting verification. */
interface Job {
  readonly start: () => void;
  readonly refuse: () => void;
}

/** The calls of one class that wait for verifications which earlier calls have caused. */
class JoinedCalls {
  readonly #byNetwork = new Map<string, number>();
  #count = 0;

  /** @returns what ends the wait of the call; undefined when there are too many */
  add(network: string): (() => void) | undefined {
    const ofNetwork = this.#byNetwork.get(network) ?? 0;
    if (this.#count >= JOINED_CALLS_MAX || ofNetwork >= JOINED_CALLS_PER_NETWORK_MAX) return undefined;
    this.#change(network, 1);
    return () => this.#change(network, -1);
  }

  #change(network: string, by: number): void {
    this.#count += by;
    const ofNetwork = (this.#byNetwork.get(network) ?? 0) + by;
    if (ofNetwork === 0) this.#byNetwork.delete(network);
    else this.#byNetwork.set(network, ofNetwork);
  }
}

/** The verifications of one issuer's tokens. */
export class Verifications {
  readonly #runningMax: number;
  readonly #isKnown: (network: string) => boolean;
  readonly #known = new FairQueue<Job>();
  readonly #unknown = new FairQueue<Job>();
  readonly #knownCalls = new JoinedCalls();
  readonly #unknownCalls = new JoinedCalls();
  #running = 0;
  #runningUnknown = 0;
  #turn = 0;

  /**
   * @param runningMax - how many run at a time; unknown networks may use three quarters
   * @param isKnown - whether a valid token has come from a network lately
   */
  constructor(runningMax: number, isKnown: (network: string) => boolean) {
    this.#runningMax = runningMax;
    this.#isKnown = isKnown;
  }

  /**
   * Runs a verification when its turn comes.
   *
   * @param peer - the caller's address and port
   * @param refused - the result when the limits leave no room
   */
  run<Result>(peer: string, verify: () => Promise<Result>, refused: Result): Promise<Result> {
    const network = networkOfPeer(peer);
    const isKnown = this.#isKnown(network);
    if (this.#hasRoom(isKnown)) return this.#start(verify, isKnown);
    const queue = isKnown ? this.#known : this.#unknown;
    return new Promise((resolve, reject) => {
      queue.push(network, peer, {
        start: () => this.#start(verify, isKnown).then(resolve, reject),
        refuse: () => resolve(refused),
      });
      if (queue.waitingOf(network) > VERIFICATIONS_PER_NETWORK_MAX) queue.dropNewest(network)?.refuse();
      else if (queue.waiting > VERIFICATIONS_MAX) queue.dropNewest()?.refuse();
    });
  }

  /**
   * Counts a call that waits for a verification which an earlier call has caused. A cancelled call is held until the
   * verification ends, so it counts until then.
   *
   * @param peer - the caller's address and port
   * @returns what ends the wait; undefined when the limits leave no room
   */
  join(peer: string): (() => void) | undefined {
    const network = networkOfPeer(peer);
    return (this.#isKnown(network) ? this.#knownCalls : this.#unknownCalls).add(network);
  }

  #hasRoom(isKnown: boolean): boolean {
    if (this.#running >= this.#runningMax) return false;
    return isKnown || this.#runningUnknown < Math.ceil((this.#runningMax * 3) / 4);
  }

  #start<Result>(verify: () => Promise<Result>, isKnown: boolean): Promise<Result> {
    this.#running += 1;
    if (!isKnown) this.#runningUnknown += 1;
    const ended = (): void => {
      this.#running -= 1;
      if (!isKnown) this.#runningUnknown -= 1;
      this.#startWaiting();
    };
    // Two callbacks instead of `finally`, which would create two more promises for each new token.
    return verify().then(
      (result) => {
        ended();
        return result;
      },
      (error: unknown) => {
        ended();
        throw error;
      },
    );
  }

  #startWaiting(): void {
    for (;;) {
      const known = this.#hasRoom(true) ? this.#known : undefined;
      const unknown = this.#hasRoom(false) ? this.#unknown : undefined;
      const [first, second] = this.#turn === TURNS - 1 ? [unknown, known] : [known, unknown];
      const job = first?.shift() ?? second?.shift();
      if (job === undefined) return;
      // Only a verification that starts takes a turn; otherwise no turn of unknown networks would come.
      this.#turn = (this.#turn + 1) % TURNS;
      job.start();
    }
  }
}
