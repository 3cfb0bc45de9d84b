/** The broker: it forwards what it gets, unless it is silent, wiped, or somebody uses it to repeat or to lie. */

import type { Network } from './network.js';
import { MachineClock, Process, type Scheduler } from './time.js';

/** Who listens. */
export interface Listener {
  readonly process: Process;
  onMessage(bytes: Uint8Array): void;
  onConnected(): void;
  onDisconnected(why: string): void;
}

/** Core NATS, as far as anybody relies on it: at most once, to whoever is connected. */
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

  /** Everything that was ever published. */
  get history(): readonly string[] {
    return this.#history;
  }

  /** A listener is connected after a while. @returns a function that ends it */
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

  /** Sends a message to all listeners, whoever made it. */
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

  /** Takes everything and passes nothing on. @returns a function that ends it */
  fallSilent(): () => void {
    this.#silences += 1;
    return () => {
      this.#silences -= 1;
    };
  }

  /** Loses its connections and all it knew; they are made again when the function returned is called. */
  wipe(): () => void {
    const lost = [...this.#listeners];
    this.#listeners.clear();
    for (const listener of lost) listener.process.run(() => listener.onDisconnected('the broker is gone'));
    return () => {
      for (const listener of lost) this.listen(listener);
    };
  }
}
