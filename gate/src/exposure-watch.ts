/** Looks for ways around the gate while it runs, and says what follows from one. */

import { type ReadyStatus, readyStatusOf } from '@portcullis/guard/engine';
import { GateError } from './errors.js';
import { waysAround } from './exposure.js';
import type { GateLog } from './log.js';
import type { UpstreamSettings } from './settings.js';

/** Interval between two looks, in milliseconds, while there is no way around, and while there is one. */
const INTERVAL_MS = 60_000;
const OPEN_INTERVAL_MS = 5_000;

/** How calls are refused while the upstream can be called around the gate. */
const EXPOSED: ReadyStatus = readyStatusOf(
  new GateError('UPSTREAM_EXPOSED', 'the server can be called around its gate, so the gate admits no call', {
    retryAfterMs: OPEN_INTERVAL_MS,
  }),
);

/** What is known of ways around the gate. */
export interface ExposureWatch {
  /** Whether there is one. */
  readonly isExposed: boolean;
  /** Why the gate is not ready, in one phrase; empty when it may be. */
  readonly reason: string;
  /** The status with which every call is refused; undefined when calls are admitted. */
  readonly refusal: ReadyStatus | undefined;
  /** Looks now. */
  look(): Promise<void>;
  close(): void;
}

/**
 * Looks for ways around the gate, now and while it runs.
 *
 * @param onChange - called when the answer has changed
 * @throws Error when there is one now, and the settings refuse that
 */
export async function watchExposure(
  upstream: UpstreamSettings,
  log: GateLog,
  onChange: () => void,
): Promise<ExposureWatch> {
  const watch = new RunningWatch(upstream, log, onChange);
  await watch.look();
  const { reason } = watch;
  if (reason === '') return watch;
  watch.close();
  throw new Error(`${reason}. Close that, or set upstream-exposed to warn`);
}

class RunningWatch implements ExposureWatch {
  readonly #upstream: UpstreamSettings;
  readonly #log: GateLog;
  readonly #onChange: () => void;
  #ways: readonly string[] = [];
  #timer: NodeJS.Timeout | undefined;
  #isClosed = false;

  constructor(upstream: UpstreamSettings, log: GateLog, onChange: () => void) {
    this.#upstream = upstream;
    this.#log = log;
    this.#onChange = onChange;
  }

  get isExposed(): boolean {
    return this.#ways.length > 0;
  }

  get reason(): string {
    if (!this.isExposed || this.#upstream.exposed === 'warn') return '';
    return `the upstream can be called around the gate: ${this.#ways.join('; ')}`;
  }

  get refusal(): ReadyStatus | undefined {
    return this.isExposed && this.#upstream.exposed === 'refuse' ? EXPOSED : undefined;
  }

  async look(): Promise<void> {
    const ways = await waysAround(this.#upstream);
    const before = this.#ways.join('; ');
    this.#ways = ways;
    if (this.#isClosed) return;
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => void this.look(), this.isExposed ? OPEN_INTERVAL_MS : INTERVAL_MS).unref();
    if (ways.join('; ') === before) return;
    this.#report(ways);
    this.#onChange();
  }

  #report(ways: readonly string[]): void {
    if (ways.length === 0) {
      this.#log.info({ event: 'upstream_closed' }, 'the upstream can no longer be called around the gate');
      return;
    }
    const what = 'the upstream can be called around the gate';
    const fields = { event: 'upstream_exposed', ways };
    if (this.#upstream.exposed === 'warn') this.#log.warn(fields, what);
    else this.#log.error(fields, `${what}: every call is refused until that is closed`);
  }

  close(): void {
    this.#isClosed = true;
    clearTimeout(this.#timer);
  }
}
