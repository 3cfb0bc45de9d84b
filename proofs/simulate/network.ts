/** The network: each link loses, delays, duplicates and reorders messages independently. */

import type { ServiceError } from '@portcullis/guard/errors';
import { AuthError } from '../../services/auth/errors.js';
import type { Random } from '../shared/random.js';
import type { Process, Scheduler } from './time.js';

/** HTTP/2 keepalive timeout of a silent connection, in milliseconds. */
const KEEPALIVE_MS = 3000;

/** Time until a machine reports that the process is not running, in milliseconds. */
const REFUSED_MS = 2;

/** Current behaviour of one link. */
export interface Weather {
  /** Usual delay of this link, in milliseconds; links differ, also in their two directions. */
  delayMs: number;
  lossProbability: number;
  repeatProbability: number;
  /** A message takes up to `slowMs` longer with this probability. */
  slowProbability: number;
  slowMs: number;
  /** Nothing passes; messages are lost, or held until the link is open again. */
  blocked: 'lose' | 'hold' | undefined;
}

/** The link from one place to another. */
export class Link {
  readonly weather: Weather;
  readonly #scheduler: Scheduler;
  readonly #random: Random;
  #held: (() => void)[] = [];

  constructor(scheduler: Scheduler, random: Random, delayMs: number) {
    this.#scheduler = scheduler;
    this.#random = random;
    this.weather = {
      delayMs,
      lossProbability: 0,
      repeatProbability: 0,
      slowProbability: 0,
      slowMs: 0,
      blocked: undefined,
    };
  }

  /** @returns whether the message can still arrive; false when it is lost */
  send(receiver: Process, arrive: () => void, mayRepeat = false): boolean {
    const { blocked, lossProbability, repeatProbability } = this.weather;
    if (blocked === 'hold') {
      this.#held.push(() => void this.send(receiver, arrive));
      return false;
    }
    if (blocked === 'lose' || this.#random.chance(lossProbability)) return false;
    this.#deliver(receiver, arrive);
    if (mayRepeat && this.#random.chance(repeatProbability)) this.#deliver(receiver, arrive);
    return true;
  }

  /** Ends a partition; held messages are delivered. */
  open(): void {
    this.weather.blocked = undefined;
    const held = this.#held;
    this.#held = [];
    for (const send of held) send();
  }

  #deliver(receiver: Process, arrive: () => void): void {
    const { delayMs, slowProbability, slowMs } = this.weather;
    const slow =
      slowProbability > 0 && this.#random.chance(slowProbability) ? this.#random.next() * slowMs : 0;
    this.#scheduler.after(delayMs * (0.5 + this.#random.next()) + slow, () => receiver.run(arrive));
  }
}

/** All links, created on first use. */
export class Network {
  readonly #links = new Map<string, Map<string, Link>>();
  readonly #scheduler: Scheduler;
  readonly #random: Random;

  constructor(scheduler: Scheduler, random: Random) {
    this.#scheduler = scheduler;
    this.#random = random;
  }

  /** The link between two places, by name. */
  link(from: string, to: string): Link {
    let links = this.#links.get(from);
    if (links === undefined) {
      links = new Map();
      this.#links.set(from, links);
    }
    let link = links.get(to);
    if (link === undefined) {
      link = new Link(this.#scheduler, this.#random, this.#random.real(0.2, 4));
      links.set(to, link);
    }
    return link;
  }

  /**
   * Calls another process. The response may be lost after the work was done; the caller then waits until its
   * connection times out.
   */
  call<T>(
    client: Process,
    server: Process,
    work: () => Promise<T>,
    options: { readonly signal?: AbortSignal; readonly patienceMs?: number } = {},
  ): Promise<T> {
    const { signal, patienceMs = KEEPALIVE_MS } = options;
    return new Promise<T>((resolve, reject) => {
      const giveUp = (): void => void client.after(patienceMs, () => reject(connectionLost()));
      const forget = server.onKill(giveUp);
      const back = this.link(server.name, client.name);
      const answer = (arrive: () => void): void => {
        forget();
        if (!back.send(client, arrive)) giveUp();
      };
      signal?.addEventListener('abort', () => reject(signal.reason), { once: true });
      const sent = this.link(client.name, server.name).send(server, () => {
        work().then(
          (result) => answer(() => resolve(result)),
          (error: unknown) => answer(() => reject(error)),
        );
      });
      if (server.isDead) client.after(REFUSED_MS, () => reject(connectionLost()));
      else if (!sent) giveUp();
    });
  }
}

/** The error of a caller whose connection was lost: the work may have been done or not. */
export function connectionLost(): ServiceError {
  return new AuthError('DEPENDENCY_UNAVAILABLE', 'the connection was lost');
}
