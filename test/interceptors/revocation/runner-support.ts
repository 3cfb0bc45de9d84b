/** A source of the revocation log whose answers a test gives, and a runner that follows it. */

import type { ServiceError } from '../../../interceptors/src/errors.js';
import type { RevocationSource } from '../../../interceptors/src/revocation/feed-runner.js';
import { statusOf } from '../../../interceptors/src/wire/status.js';
import type {
  Broadcast,
  PullRequest,
  PullResponse,
  SyncRequest,
  SyncResponse,
} from '../../../proto/gen/portcullis/revocation/v1/revocation.js';
import type { SetClock } from '../tokens-support.js';

/** A sync that is open until the test answers it. */
interface Question {
  readonly request: SyncRequest;
  readonly signal: AbortSignal;
  readonly answer: (response: SyncResponse) => void;
  readonly fail: (error: unknown) => void;
}

/** A pull whose parts the test sends. */
interface Pull {
  readonly request: PullRequest;
  readonly signal: AbortSignal;
  send(...parts: PullResponse[]): void;
  end(): void;
  fail(error: Error): void;
}

/** A source whose responses the test controls. */
export class HeldSource implements RevocationSource {
  readonly questions: Question[] = [];
  readonly pulls: Pull[] = [];
  /** Does not react to aborted signals, so that syncs never fail. */
  isDeaf = false;
  /** Notifies of entries that this process committed. */
  written: (broadcast: Broadcast) => void = () => {};
  readonly #clock: SetClock;
  #waiting: (() => void)[] = [];

  constructor(clock: SetClock) {
    this.#clock = clock;
  }

  sync(request: SyncRequest, signal: AbortSignal): Promise<SyncResponse> {
    // No two syncs are sent at the same time.
    this.#clock.pass(1);
    return new Promise((resolve, reject) => {
      this.questions.push({ request, signal, answer: resolve, fail: reject });
      signal.addEventListener('abort', () => {
        if (!this.isDeaf) reject(new Error('aborted'));
      });
      this.#wake();
    });
  }

  isClosed = false;

  close(): void {
    this.isClosed = true;
  }

  follow(onWritten: (written: Broadcast) => void): void {
    this.written = onWritten;
  }

  async *pull(request: PullRequest, signal: AbortSignal): AsyncGenerator<PullResponse> {
    const events: (PullResponse | Error | 'end')[] = [];
    let wake: () => void = () => {};
    const push = (event: PullResponse | Error | 'end'): void => {
      events.push(event);
      wake();
    };
    this.pulls.push({
      request,
      signal,
      send: (...parts) => parts.forEach(push),
      end: () => push('end'),
      fail: push,
    });
    signal.addEventListener('abort', () => push(new Error('aborted')));
    this.#wake();
    for (;;) {
      const event = events.shift();
      if (event === 'end') return;
      if (event instanceof Error) throw event;
      if (event !== undefined) yield event;
      else {
        await new Promise<void>((resolve) => {
          wake = resolve;
        });
      }
    }
  }

  /** The sync with this number, as soon as it is sent. */
  question(number: number): Promise<Question> {
    return this.#when(() => this.questions[number]);
  }

  pullNumber(number: number): Promise<Pull> {
    return this.#when(() => this.pulls[number]);
  }

  async #when<T>(find: () => T | undefined): Promise<T> {
    for (;;) {
      const found = find();
      if (found !== undefined) return found;
      await new Promise<void>((resolve) => {
        this.#waiting.push(resolve);
      });
    }
  }

  #wake(): void {
    const waiting = this.#waiting;
    this.#waiting = [];
    for (const resolve of waiting) resolve();
  }
}

/** Runs everything that waits for its turn only. */
export async function settled(): Promise<void> {
  for (let turn = 0; turn < 20; turn += 1) await new Promise(setImmediate);
}

/** The error that a gRPC client would receive. */
export function received(error: ServiceError): Error {
  return Object.assign(new Error(error.message), statusOf(error));
}
