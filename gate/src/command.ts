/** `portcullis gate` and `portcullis gate rules`: what the command line calls. */

import { systemClock } from '@portcullis/guard/clock';
import { formatAddress } from './addresses.js';
import { startGate } from './gate.js';
import { createGateLog, type GateLog } from './log.js';
import { describeRule, type RuledMethod, RulesError, readRuleTable } from './rules.js';
import {
  type GateSettings,
  type RawSettings,
  type RulesSettings,
  readSettings,
  SettingsError,
} from './settings.js';
import { METHOD_PATH } from './settings-shape.js';
import { startWorkers } from './workers.js';

/** A terminal and the npm that runs the gate send the same signal; a repetition this soon counts as one, in milliseconds. */
const SAME_SIGNAL_MS = 1_000;

/** What is stopped and reloaded by signals. */
interface Running {
  reload(): Promise<void>;
  close(hurry: AbortSignal): Promise<void>;
}

/**
 * Runs a gate until SIGTERM or SIGINT; a second one ends the calls that are still waited for. SIGHUP reads rules and
 * certificates again.
 *
 * @throws SettingsError, RulesError, or the Error of a port that cannot be opened
 */
export async function runGate(flags: RawSettings, configFile: string | undefined): Promise<void> {
  const settings = readChecked(flags, configFile);
  const log = createGateLog(settings.logLevel);
  const hurry = new AbortController();
  const stopped = stopSignal(() => {
    log.info({ event: 'hurrying' }, 'a second signal: calls are waited for no longer');
    hurry.abort();
  });
  let running: Running | undefined;
  let isReloadDue = false;
  // From the beginning: without a listener, SIGHUP ends the process.
  const onHangUp = (): void => {
    log.info({ event: 'reload' }, 'reading rules and certificates again');
    // One that comes while workers are still starting must not be lost.
    if (running === undefined) isReloadDue = true;
    else void running.reload();
  };
  process.on('SIGHUP', onHangUp);
  running = await start(settings, { flags, configFile, log }, stopped);
  if (isReloadDue) await running.reload();
  const signal = await stopped;
  log.info({ event: 'stopping', signal }, 'the gate stops: calls may end');
  await running.close(hurry.signal);
  process.off('SIGHUP', onHangUp);
  log.info({ event: 'stopped' }, 'the gate has stopped');
}

/** Reads settings and rules: the faults of both are reported together, before anything opens. */
function readChecked(flags: RawSettings, configFile: string | undefined): GateSettings {
  try {
    const settings = readSettings(flags, configFile);
    readRuleTable(settings.rules);
    return settings;
  } catch (error) {
    if (!(error instanceof SettingsError) || error.rules === undefined) throw error;
    throw new SettingsError([...error.faults, ...faultsOfRules(error.rules)], { cause: error });
  }
}

function faultsOfRules(rules: RulesSettings): readonly string[] {
  try {
    // Without both, the settings have said that one is missing.
    if (rules.descriptors !== undefined || rules.file !== undefined) readRuleTable(rules);
    return [];
  } catch (error) {
    if (error instanceof RulesError) return error.faults;
    throw error;
  }
}

async function start(
  settings: GateSettings,
  options: { readonly flags: RawSettings; readonly configFile: string | undefined; readonly log: GateLog },
  stopped: Promise<NodeJS.Signals>,
): Promise<Running> {
  if (settings.workers === 1) return await startGate(settings, options);
  const workers = await startWorkers({ settings, ...options });
  try {
    // A worker may fail again and again: a signal ends the wait for it.
    if ((await Promise.race([workers.opened, stopped])) !== undefined) return workers;
  } catch (error) {
    await workers.close();
    throw error;
  }
  const { listen } = settings;
  options.log.info(
    { event: 'workers_open', workers: settings.workers, listen: listen && formatAddress(listen.address) },
    'all workers are open',
  );
  return workers;
}

/**
 * The first signal to stop. Without a listener, a second one would kill the process, and calls would end without a status.
 */
function stopSignal(onSecond: () => void): Promise<NodeJS.Signals> {
  return new Promise((resolve) => {
    let firstMs: number | undefined;
    const onSignal = (signal: NodeJS.Signals): void => {
      if (firstMs === undefined) {
        firstMs = systemClock.monotonicMs();
        resolve(signal);
      } else if (systemClock.monotonicMs() - firstMs > SAME_SIGNAL_MS) {
        onSecond();
      }
    };
    for (const signal of ['SIGTERM', 'SIGINT'] as const) process.on(signal, onSignal);
  });
}

/** Options of `portcullis gate rules`. */
export interface RulesOptions {
  /** A descriptor set, or a file of rules, by its ending. */
  readonly file: string;
  /** A file of rules beside the descriptor set. */
  readonly rules?: string | undefined;
  readonly publicMethods?: readonly string[] | undefined;
}

/** What ends the name of a file of rules. */
const RULES_FILE = /\.(ya?ml|json)$/i;

/**
 * The methods of a file and their rules.
 *
 * @throws RulesError naming every method without a rule
 */
export function gateRules({ file, rules, publicMethods = [] }: RulesOptions): readonly RuledMethod[] {
  const isRulesFile = RULES_FILE.test(file);
  if (isRulesFile && rules !== undefined)
    throw new RulesError(['--rules needs a descriptor set, not two files of rules']);
  const noPaths = publicMethods.filter((path) => !METHOD_PATH.test(path));
  if (noPaths.length > 0) {
    throw new RulesError(noPaths.map((path) => `--public: expected /package.Service/Method, got ${path}`));
  }
  const table = readRuleTable({
    descriptors: isRulesFile ? undefined : file,
    file: isRulesFile ? file : rules,
    publicMethods,
    health: 'closed',
    reflection: 'closed',
  });
  return [...table.methods.values()].sort((one, other) => (one.path < other.path ? -1 : 1));
}

/** A method in the words of the table: path, kind, rule, and where the rule comes from. */
export function describeMethod({ path, kind, rule, source }: RuledMethod): readonly string[] {
  return [path, describeKind(kind), describeRule(rule), source];
}

function describeKind(kind: RuledMethod['kind']): string {
  if (kind === undefined) return 'unknown';
  if (kind.requestStream) return kind.responseStream ? 'bidi stream' : 'client stream';
  return kind.responseStream ? 'server stream' : 'unary';
}
