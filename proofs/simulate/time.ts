/** Virtual time: the event queue, inaccurate clocks, and processes. */

import type { Clock, Timers } from '@portcullis/guard/clock';

interface Event {
  readonly atMs: number;
  readonly order: number;
  work: (() => void) | undefined;
}

/** True time, which no simulated process can read, and the event queue. */
export class Scheduler {
  readonly #heap: Event[] = [];
  #order = 0;
  #nowMs = 0;

  get nowMs(): number {
    return this.#nowMs;
  }

  /** Schedules work at a moment of true time. @returns a function that cancels it */
  at(atMs: number, work: () => void): () => void {
    const event: Event = { atMs: Math.max(atMs, this.#nowMs), order: this.#order, work };
    this.#order += 1;
    this.#push(event);
    return () => {
      event.work = undefined;
    };
  }

  after(ms: number, work: () => void): () => void {
    return this.at(this.#nowMs + ms, work);
  }

  /** Runs everything up to a moment, each event together with all promises that it settles. */
  runUntil(endMs: number): void {
    for (;;) {
      const event = this.#heap[0];
      if (event === undefined || event.atMs > endMs) break;
      this.#pop();
      if (event.work === undefined) continue;
      this.#nowMs = event.atMs;
      event.work();
      settlePromises();
    }
    this.#nowMs = Math.max(this.#nowMs, endMs);
  }

  #push(event: Event): void {
    const heap = this.#heap;
    let at = heap.length;
    heap.push(event);
    while (at > 0) {
      const above = (at - 1) >> 1;
      const parent = heap[above];
      if (parent === undefined || isBefore(parent, event)) break;
      heap[at] = parent;
      at = above;
    }
    heap[at] = event;
  }

  #pop(): void {
    const heap = this.#heap;
    const last = heap.pop();
    if (last === undefined || heap.length === 0) return;
    let at = 0;
    for (;;) {
      let below = 2 * at + 1;
      let child = heap[below];
      if (child === undefined) break;
      const other = heap[below + 1];
      if (other !== undefined && isBefore(other, child)) {
        child = other;
        below += 1;
      }
      if (isBefore(last, child)) break;
      heap[at] = child;
      at = below;
    }
    heap[at] = last;
  }
}

function isBefore(left: Event, right: Event): boolean {
  return left.atMs < right.atMs || (left.atMs === right.atMs && left.order < right.order);
}

/**
 * Runs promise reactions until none is left. Node.js runs them between two events of its own loop, at ten times the cost
 * of a simulated event; this is the function that it calls for that, under its historical name on `process`.
 */
function settlePromises(): void {
  tick();
}

const tick = ((): (() => void) => {
  const found: unknown = Reflect.get(process, '_tickCallback');
  if (typeof found !== 'function') throw new TypeError('this Node.js cannot settle promises on demand');
  return () => void Reflect.apply(found, process, []);
})();

/**
 * Proves that promises can be settled here.
 *
 * @throws TypeError when called from within a promise reaction, where none of the others can run
 */
export function demandSettling(): void {
  let settled = false;
  void Promise.resolve().then(() => {
    settled = true;
  });
  settlePromises();
  if (!settled)
    throw new TypeError('a simulation must be started from a timer or an event, not after an await');
}

/** The two clocks of one machine: one oscillator, a wall clock that may be set, a sleep that stops one of them. */
export class MachineClock implements Clock {
  readonly #scheduler: Scheduler;
  #rate: number;
  #sinceMs = 0;
  #monotonicMs: number;
  #wallMs: number;
  #asleep = false;

  constructor(
    scheduler: Scheduler,
    options: { readonly rate: number; readonly wallMs: number; readonly monotonicMs: number },
  ) {
    this.#scheduler = scheduler;
    this.#rate = options.rate;
    this.#sinceMs = scheduler.nowMs;
    this.#wallMs = options.wallMs;
    this.#monotonicMs = options.monotonicMs;
  }

  get rate(): number {
    return this.#rate;
  }

  wallMs(): number {
    return Math.floor(this.#wallMs + this.#elapsedMs());
  }

  monotonicMs(): number {
    return this.#monotonicMs + (this.#asleep ? 0 : this.#elapsedMs());
  }

  /** Sets the wall clock forward, or back. */
  step(ms: number): void {
    this.#settle();
    this.#wallMs += ms;
  }

  changeRate(rate: number): void {
    this.#settle();
    this.#rate = rate;
  }

  /** The monotonic clock stops; the wall clock advances. */
  sleep(asleep: boolean): void {
    this.#settle();
    this.#asleep = asleep;
  }

  #elapsedMs(): number {
    return (this.#scheduler.nowMs - this.#sinceMs) * this.#rate;
  }

  #settle(): void {
    const elapsedMs = this.#elapsedMs();
    this.#wallMs += elapsedMs;
    if (!this.#asleep) this.#monotonicMs += elapsedMs;
    this.#sinceMs = this.#scheduler.nowMs;
  }
}

/** A process: all its work runs through {@link run}, so that it can be paused and killed between any two steps. */
export class Process implements Timers {
  readonly name: string;
  readonly clock: MachineClock;
  readonly #scheduler: Scheduler;
  #backlog: (() => void)[] = [];
  readonly #onKill = new Set<() => void>();
  #pauses = 0;
  #dead = false;

  constructor(scheduler: Scheduler, name: string, clock: MachineClock) {
    this.#scheduler = scheduler;
    this.name = name;
    this.clock = clock;
  }

  get isDead(): boolean {
    return this.#dead;
  }

  get isRunning(): boolean {
    return !this.#dead && this.#pauses === 0;
  }

  /** Runs the work now, when the process resumes, or never when it is dead. */
  run(work: () => void): void {
    if (this.#dead) return;
    if (this.#pauses > 0) this.#backlog.push(work);
    else work();
  }

  after(ms: number, work: () => void): () => void {
    if (!Number.isFinite(ms)) return () => {};
    let stopped = false;
    const stop = this.#scheduler.after(ms / this.clock.rate, () =>
      this.run(() => {
        if (!stopped) work();
      }),
    );
    return () => {
      stopped = true;
      stop();
    };
  }

  soon(work: () => void): void {
    this.#scheduler.after(0, () => this.run(work));
  }

  /** Pauses between two steps; events that arrive meanwhile wait. Pauses can overlap. @returns a function that ends it */
  pause(): () => void {
    this.#pauses += 1;
    let ended = false;
    return () => {
      if (ended) return;
      ended = true;
      this.#pauses -= 1;
      if (this.#pauses > 0) return;
      const backlog = this.#backlog;
      this.#backlog = [];
      for (const work of backlog) this.#scheduler.after(0, () => this.run(work));
    };
  }

  kill(): void {
    this.#dead = true;
    this.#backlog = [];
    for (const listener of this.#onKill) listener();
    this.#onKill.clear();
  }

  /** Registers a listener for the end of the process. @returns a function that removes it */
  onKill(listener: () => void): () => void {
    this.#onKill.add(listener);
    return () => void this.#onKill.delete(listener);
  }
}
