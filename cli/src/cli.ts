/** What every command has: the terminal, the stored sessions, and a way to run in one of them. */

import type { ContextStore } from './contexts.js';
import { openSession, type Session } from './session.js';
import type { Terminal } from './terminal.js';

/** The surroundings of the commands. */
export interface Cli {
  readonly store: ContextStore;
  /** The terminal, with the global options of this command line. */
  terminal(): Terminal;
  /** The context that `--context` names. */
  context(): string | undefined;
  /**
   * Runs work with the stored session, and closes its connection.
   *
   * @throws CommandError when nobody is logged in
   */
  inSession(work: (session: Session, terminal: Terminal) => Promise<void>): Promise<void>;
}

export function createCli(options: {
  readonly store: ContextStore;
  readonly terminal: () => Terminal;
  readonly context: () => string | undefined;
}): Cli {
  return {
    ...options,
    inSession: async (work) => {
      const session = await openSession(options.store, options.context());
      try {
        await work(session, options.terminal());
      } finally {
        session.close();
      }
    },
  };
}
