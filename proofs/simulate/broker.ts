/** The broker: it forwards messages, unless it is silent or wiped, or an attacker replays or forges messages. */

import type { Network } from './network.js';
import { MachineClock, Process, type Scheduler } from './time.js';

/** A subscriber. */
export interface Listener {
  readonly process: Process;
  onMessage(bytes: Uint8Array): void;
  onConnected(): void;
  onDisconnected(status: { readonly state: 'unreachable'; readonly problem: string }): void;
}

/** Core NATS: at most once delivery to connected subscribers. */
export class Broker {
  readonly process: Process;
  readonly #scheduler: Scheduler;
  readonly #network: Network;
  readonly #listeners = new Set<Listener>();
  readonly #history: string[] = [];
  #silences = 0;

  constructor(scheduler: Scheduler, network: Network) {
    this.#scheduler = scheduler;
    this.#network = network;
    this.process = new Process(
      scheduler,
      'broker',
      new MachineClock(scheduler, { rate: 1, wallMs: 0, monotonicMs: 0 }),
    );
  }

  /** All published messages. */
  get history(): readonly string[] {
    return this.#history;
  }

  /** Connects a subscriber after a delay. @returns a function that ends it */
  listen(listener: Listener): () => void {
    this.#scheduler.after(2, () =>
      listener.process.run(() => {
        this.#listeners.add(listener);
        listener.onConnected();
      }),
    );
    return () => void this.#listeners.delete(listener);
  }

  publish(from: Process, message: string): void {
    this.#history.push(message);
    this.#network.link(from.name, this.process.name).send(this.process, () => this.forward(message));
  }

  /** Sends a message to all subscribers, genuine or forged. */
  forward(message: string): void {
    if (this.#silences > 0) return;
    const bytes = Buffer.from(message);
    for (const listener of this.#listeners) {
      if (listener.process.isDead) this.#listeners.delete(listener);
      else {
        const link = this.#network.link(this.process.name, listener.process.name);
        link.send(listener.process, () => listener.onMessage(bytes), true);
      }
    }
  }

  /** Drops every message. @returns a function that ends it */
  fallSilent(): () => void {
    this.#silences += 1;
    return () => {
      this.#silences -= 1;
    };
  }

  /** Loses its connections and its state; the returned function reconnects the subscribers. */
  wipe(): () => void {
    const lost = [...this.#listeners];
    this.#listeners.clear();
    const status = { state: 'unreachable', problem: 'the broker is gone' } as const;
    for (const listener of lost) listener.process.run(() => listener.onDisconnected(status));
    return () => {
      for (const listener of lost) this.listen(listener);
    };
  }
}
