/** A pause that a wake-up ends early. */

/** Wake-ups are collected for this long, in milliseconds, so that many changes are read in few queries. */
const WAKE_UP_DELAY_MS = 5;

/** A pause that a wake-up ends early. */
export interface Pause {
  /** Resolves after `ms` milliseconds, at a wake-up, or when the signal is aborted. A wake-up is remembered. */
  wait(ms: number, signal: AbortSignal): Promise<void>;
  wake(): void;
}

/** Creates a pause. */
export function createPause(): Pause {
  let isWoken = false;
  let endSleep: (() => void) | undefined;

  function sleep(ms: number, signal: AbortSignal, isInterruptible: boolean): Promise<void> {
    return new Promise((resolve) => {
      const end = () => {
        clearTimeout(timer);
        signal.removeEventListener('abort', end);
        endSleep = undefined;
        resolve();
      };
      const timer = setTimeout(end, ms);
      signal.addEventListener('abort', end);
      if (isInterruptible) endSleep = end;
      if (signal.aborted) end();
    });
  }

  return {
    wait: async (ms, signal) => {
      await sleep(Math.min(ms, WAKE_UP_DELAY_MS), signal, false);
      if (ms > WAKE_UP_DELAY_MS && !isWoken) await sleep(ms - WAKE_UP_DELAY_MS, signal, true);
      isWoken = false;
    },
    wake: () => {
      isWoken = true;
      endSleep?.();
    },
  };
}
