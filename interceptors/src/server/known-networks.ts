/** The networks from which a valid token has come lately. Strangers cannot take the share that is kept for them. */

import type { Clock } from '../clock.js';

/** Maximum number of networks that are remembered. */
const NETWORKS_MAX = 10_000;

/** How long a network is remembered after a token was verified for it: longer than an access token lives. */
export const KNOWN_NETWORK_MS = 60 * 60 * 1000;

export class KnownNetworks {
  /** When a token was last verified, by network; the oldest first. */
  readonly #verifiedMs = new Map<string, number>();
  readonly #clock: Clock;

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  /** A token from this network has been verified. */
  add(network: string): void {
    this.#verifiedMs.delete(network);
    this.#verifiedMs.set(network, this.#clock.monotonicMs());
    if (this.#verifiedMs.size <= NETWORKS_MAX) return;
    for (const oldest of this.#verifiedMs.keys()) {
      this.#verifiedMs.delete(oldest);
      return;
    }
  }

  has(network: string): boolean {
    const verifiedMs = this.#verifiedMs.get(network) ?? Number.NEGATIVE_INFINITY;
    return this.#clock.monotonicMs() - verifiedMs < KNOWN_NETWORK_MS;
  }
}
