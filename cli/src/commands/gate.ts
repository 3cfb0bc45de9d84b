/** `portcullis gate`: a process in front of a gRPC server of any language. */

import type { RawSettings } from '@portcullis/gate';
import { CommandError, EXIT } from '../failures.js';
import { tableOf } from '../tables.js';
import { type Terminal, writeResult } from '../terminal.js';

/** Loaded when it is used: other commands need nothing of it. */
const loadGate = () => import('@portcullis/gate');

/** Runs a gate until a signal. */
export async function openGate(flags: RawSettings, configFile: string | undefined): Promise<void> {
  const { runGate } = await loadGate();
  await runGate(flags, configFile).catch(rethrow);
}

/** Options of `gate rules`. */
export interface GateRulesOptions {
  readonly rules?: string;
  readonly public: readonly string[];
}

/** Prints the rule of every method. */
export async function printGateRules(
  terminal: Terminal,
  file: string,
  options: GateRulesOptions,
): Promise<void> {
  const { describeMethod, gateRules } = await loadGate();
  try {
    const methods = gateRules({ file, rules: options.rules, publicMethods: options.public });
    writeResult(terminal, { methods }, () =>
      tableOf(['method', 'kind', 'rule', 'from'], methods.map(describeMethod)),
    );
  } catch (error) {
    await rethrow(error);
  }
}

/** Faults of settings and rules are meant for the person at the terminal; so are ports that cannot be opened. */
async function rethrow(error: unknown): Promise<never> {
  const { RulesError, SettingsError } = await loadGate();
  if (error instanceof SettingsError) {
    throw new CommandError(error.message, { exitCode: EXIT.usage, cause: error });
  }
  if (error instanceof RulesError) throw new CommandError(error.message, { cause: error });
  throw error instanceof Error ? new CommandError(error.message, { cause: error }) : error;
}
