/** A stack of what a process has opened: the last is closed first. */
import type { Log } from './log.js';

/** Closes what was opened, in reverse order. */
export interface Closer {
  /**
   * Registers how a resource is closed; to be called where the resource is opened. A resource that is added after
   * {@link closeAll} has ended is closed at once.
   */
  add(name: string, close: () => void | Promise<void>): void;
  /** Closes everything once, however often it is called. A failure is logged, and the rest is closed. */
  closeAll(): Promise<void>;
}

/** A stack with nothing on it. */
export function createCloser(log: Pick<Log, 'error'>): Closer {
  const open: { readonly name: string; readonly close: () => void | Promise<void> }[] = [];
  let closing: Promise<void> | undefined;
  let isClosed = false;

  async function closeInReverse(): Promise<void> {
    for (let last = open.pop(); last !== undefined; last = open.pop()) {
      try {
        await last.close();
      } catch (error) {
        log.error({ err: error, resource: last.name }, 'could not close a resource');
      }
    }
    isClosed = true;
  }

  return {
    add: (name, close) => {
      open.push({ name, close });
      if (isClosed) void closeInReverse();
    },
    closeAll: () => {
      closing ??= closeInReverse();
      return closing;
    },
  };
}
