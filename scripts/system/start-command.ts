/** Starts the whole system, prints how to use it, and stops it on a signal: `npm start` and `portcullis start`. */

import { resolve } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { Command, InvalidArgumentError } from 'commander';
import { FORWARDED_VARIABLES } from './forwarded-variables.js';
import { onNpmGone } from './npm-process.js';
import type { Part } from './parts.js';
import type { Progress, System } from './system.js';
import { startSystem } from './system.js';
import { SystemError } from './system-error.js';
import { PORT_FLAGS, type PortFlags } from './system-ports.js';

const PREFIX = 'PORTCULLIS_';
const DATA_DIR_VARIABLE = 'PORTCULLIS_DATA_DIR';
const STOP_SIGNALS = ['SIGINT', 'SIGTERM', 'SIGHUP'] as const;
const STILL_WAITING_MS = 4_000;
const RESTART_DELAY_MS = 1_000;
const RESTART_DELAY_MAX_MS = 30_000;
/** npm forwards a signal that the terminal has sent to this process as well, so a repetition this soon is ignored. */
const SAME_SIGNAL_MS = 1_000;

/** What differs between `npm start` in the clone and `portcullis start` from the packages. */
interface StartSettings {
  /** The command as an operator types it, such as `npm start`. */
  readonly command: string;
  /** The flags and their values. */
  readonly words: readonly string[];
  /** The data folder, unless {@link DATA_DIR_VARIABLE} names another one. */
  readonly dataFolder: string;
  /** Variables with the prefix of the services that other programs read. All others are rejected. */
  readonly otherVariables: readonly string[];
  /** The program with which the printed examples call the services, if grpcurl is missing. */
  readonly examples: 'buf' | 'portcullis';
}

/** Prints a line for a person. */
type Say = (text: string) => void;

/**
 * Starts the system, and returns when a signal has stopped it.
 *
 * @throws SystemError whose message the operator can act on
 */
export async function runStart(settings: StartSettings): Promise<void> {
  const flags = parseFlags(settings);
  refuseUnknownVariables(settings);
  const isJson = flags['json'] === true;
  // Standard output is for the machine then.
  const say: Say = isJson ? (text) => console.error(text) : (text) => console.log(text);
  const stopping = new AbortController();
  stopOnSignals(stopping, say);
  await onNpmGone(() => stopping.abort());
  const dataDir = resolve(process.env[DATA_DIR_VARIABLE] || settings.dataFolder);
  say(`Starting Portcullis; data folder: ${dataDir}`);
  const began = performance.now();
  const display = showProgress(say);
  let system: System;
  try {
    system = await startSystem({
      dataDir,
      ports: flags['freePorts'] === true ? 'free' : 'default',
      portOverrides: portsFrom(flags),
      environment: process.env,
      onProgress: display.show,
      signal: stopping.signal,
    });
  } catch (error) {
    if (stopping.signal.aborted) return say('Stopped; nothing is left running.');
    throw error;
  } finally {
    display.end();
  }
  const tookMs = performance.now() - began;
  if (isJson) console.log(JSON.stringify(readySystem(system, tookMs)));
  else say(`\n${describe(system, tookMs, settings)}`);
  const parts = [system.postgres, system.nats, system.auth, ...system.inventory, system.payment];
  for (const part of parts) if (part !== undefined) void keepRunning(part, stopping.signal, say);
  await new Promise((done) => stopping.signal.addEventListener('abort', done, { once: true }));
  await system.stop();
  say('Stopped; nothing is left running. The data are kept.');
}

/** `portcullis start` has the same flags with its own help. */
function parseFlags({ words }: StartSettings): Record<string, unknown> {
  const program = new Command('npm start --')
    .description('Starts the whole system: database, broker, auth, two instances of inventory, payment.')
    .option('--free-ports', 'use free ports instead of the documented ones')
    .option('--json', 'print one JSON object when everything is ready, and the rest to standard error')
    .addHelpText(
      'after',
      `\nVariables: ${[DATA_DIR_VARIABLE, 'DATABASE_URL', 'NATS_URL', 'NATS_SERVER_BIN', ...Object.keys(FORWARDED_VARIABLES)].join(', ')}`,
    );
  for (const { flag, what, port } of PORT_FLAGS) {
    program.option(`${flag} <port>`, `port of ${what} (default: ${port})`, parsePort);
  }
  return program.parse(words, { from: 'user' }).opts<Record<string, unknown>>();
}

function stopOnSignals(stopping: AbortController, say: Say): void {
  let firstSignalMs: number | undefined;
  for (const signal of STOP_SIGNALS) {
    process.on(signal, () => {
      if (firstSignalMs === undefined) {
        say('\nStopping …');
        firstSignalMs = performance.now();
        stopping.abort();
      } else if (performance.now() - firstSignalMs > SAME_SIGNAL_MS) {
        say('Not waiting any longer; remaining processes are ended in the background.');
        process.exit(1);
      }
    });
  }
}

/** Without this check, a misspelt variable would be ignored silently. */
function refuseUnknownVariables({ command, otherVariables }: StartSettings): void {
  const known = [DATA_DIR_VARIABLE, ...Object.keys(FORWARDED_VARIABLES)];
  const unknown = Object.keys(process.env).filter(
    (name) => name.startsWith(PREFIX) && ![...known, ...otherVariables].includes(name),
  );
  if (unknown.length === 0) return;
  throw new SystemError(`${unknown.join(', ')}: not a variable of ${command}. It reads ${known.join(', ')}.`);
}

function portsFrom(flags: Record<string, unknown>): PortFlags {
  const chosen: PortFlags = {};
  for (const { name, flag } of PORT_FLAGS) {
    const value = flags[optionName(flag)];
    if (typeof value === 'number') chosen[name] = value;
  }
  return chosen;
}

/** The property in which commander stores the value of a flag. */
function optionName(flag: string): string {
  return flag.slice(2).replace(/-(.)/g, (_, letter: string) => letter.toUpperCase());
}

function parsePort(text: string): number {
  const port = Number(text);
  if (/^\d+$/.test(text) && port >= 1 && port <= 65_535) return port;
  throw new InvalidArgumentError('Expected a port from 1 to 65535.');
}

/** Prints a line for each part that is ready, and names the parts that take long. */
function showProgress(say: Say): { show: (progress: Progress) => void; end: () => void } {
  const pending = new Set<string>();
  const timer = setInterval(() => {
    if (pending.size > 0) say(`  … still starting: ${[...pending].join(', ')}`);
  }, STILL_WAITING_MS);
  return {
    show({ part, state, detail, elapsedMs }) {
      if (state === 'note') say(`  · ${detail}`);
      if (state === 'starting') pending.add(part);
      if (state === 'ready') {
        pending.delete(part);
        say(`  ✓ ${part.padEnd(12)} ${detail.padEnd(20)} ${seconds(elapsedMs)}`);
      }
    },
    end: () => clearInterval(timer),
  };
}

/** Restarts a part whenever it has ended on its own. */
async function keepRunning(part: Part, stopping: AbortSignal, say: Say): Promise<void> {
  let delayMs = RESTART_DELAY_MS;
  for (;;) {
    const how = await part.ended();
    if (stopping.aborted) return;
    say(`${part.name} has ended (${how}); restarting it. Its log: ${part.logFile}`);
    try {
      await sleep(delayMs, undefined, { signal: stopping });
      await part.restart();
      delayMs = RESTART_DELAY_MS;
      say(`${part.name} is back.`);
    } catch (error) {
      if (stopping.aborted) return;
      console.error(error instanceof Error ? error.message : error);
      delayMs = Math.min(2 * delayMs, RESTART_DELAY_MAX_MS);
    }
  }
}

/** What `--json` prints. Addresses have no passwords of the broker and the database in them. */
function readySystem(system: System, tookMs: number): Record<string, unknown> {
  const { auth, inventory, payment, nats, postgres, users, dataDir, issuer } = system;
  return {
    readyAfterMs: Math.round(tookMs),
    issuer,
    dataFolder: dataDir,
    services: [auth, ...inventory, payment].map(({ name, address, opsAddress }) => ({
      name,
      address,
      opsAddress,
    })),
    nats: nats && withoutPassword(nats.url('auth')),
    postgres: postgres && withoutPassword(postgres.url('')),
    users: Object.values(users).map(({ username, password, roles }) => ({ username, password, roles })),
  };
}

function describe(system: System, elapsedMs: number, settings: StartSettings): string {
  const { auth, inventory, payment, nats, postgres, users, accounts } = system;
  const services = [auth, ...inventory, payment];
  const accountOf = (name: string): string => new Map(Object.entries(accounts ?? {})).get(name) ?? '';
  return `Portcullis is ready after ${seconds(elapsedMs)}.

${table([
  ['part', 'gRPC', 'ops HTTP (/livez, /readyz, /metrics)'],
  ...services.map(({ name, address, opsAddress }) => [name, address, `http://${opsAddress}`]),
  ['nats-server', nats === undefined ? 'from NATS_URL' : withoutPassword(nats.url('auth')), ''],
  ['PostgreSQL', postgres === undefined ? 'from DATABASE_URL' : withoutPassword(postgres.url('')), ''],
])}

${table([
  ['user', 'password', 'roles', 'account (EUR)'],
  ...Object.values(users).map(({ username, password, roles }) => [
    username,
    password,
    roles.join(', '),
    accountOf(username),
  ]),
])}

Data and logs are in ${system.dataDir}, secrets in ${system.secrets.folder}.${clusterNote(system)}
The public keys are at ${system.issuer}/.well-known/jwks.json

${examples(system, settings)}

Ctrl-C stops everything that this command has started.`;
}

function examples(system: System, settings: StartSettings): string {
  return `${grpcurlExamples(system)}\n\n${settings.examples === 'buf' ? bufExamples(system) : portcullisExamples(system)}`;
}

const RESERVATION = '{"lines": [{"sku": "LAMP-01", "quantity": 1}], "request_id": "first-try"}';

function grpcurlExamples({ auth, inventory: [first], users: { alice } }: System): string {
  return `Try it with grpcurl:

  TOKEN=$(grpcurl -plaintext -d '{"username": "alice", "password": "${alice.password}"}' \\
    ${auth.address} auth.v1.AuthService/Login | sed -n 's/.*"accessToken": *"\\([^"]*\\)".*/\\1/p')
  grpcurl -plaintext -H "authorization: Bearer $TOKEN" \\
    ${first.address} inventory.v1.InventoryService/ListItems
  grpcurl -plaintext -H "authorization: Bearer $TOKEN" -d '${RESERVATION}' \\
    ${first.address} inventory.v1.InventoryService/ReserveStock`;
}

function bufExamples({ auth, inventory: [first], users: { alice } }: System): string {
  return `or with buf, which is already installed:

  TOKEN=$(npx buf curl --protocol grpc --http2-prior-knowledge \\
    -d '{"username": "alice", "password": "${alice.password}"}' \\
    http://${auth.address}/auth.v1.AuthService/Login | sed -n 's/.*"accessToken": *"\\([^"]*\\)".*/\\1/p')
  npx buf curl --protocol grpc --http2-prior-knowledge -H "authorization: Bearer $TOKEN" \\
    http://${first.address}/inventory.v1.InventoryService/ListItems
  npx buf curl --protocol grpc --http2-prior-knowledge -H "authorization: Bearer $TOKEN" \\
    -d '${RESERVATION}' http://${first.address}/inventory.v1.InventoryService/ReserveStock`;
}

function portcullisExamples({ auth, inventory: [first, second], users: { alice, olga } }: System): string {
  return `or with portcullis, in another terminal in this folder; olga then ends the sessions of alice:

  echo '${alice.password}' | npx portcullis login --user alice --address ${auth.address} --password-stdin --context alice
  npx portcullis call inventory.v1.InventoryService/ListItems --address ${first.address} --context alice
  npx portcullis call inventory.v1.InventoryService/ReserveStock '${RESERVATION}' \\
    --address ${first.address} --context alice
  echo '${olga.password}' | npx portcullis login --user olga --address ${auth.address} --password-stdin --context olga
  npx portcullis revoke --user alice --context olga
  npx portcullis call inventory.v1.InventoryService/ListItems --address ${second.address} --context alice`;
}

/** When PostgreSQL's user cannot enter the data folder, the cluster is in another folder. */
function clusterNote({ dataDir, postgres }: System): string {
  if (postgres === undefined || postgres.clusterDir.startsWith(dataDir)) return '';
  return `\nPostgreSQL, which does not run as root, has its data in ${postgres.clusterDir}.`;
}

function withoutPassword(address: string): string {
  const url = new URL(address);
  return `${url.protocol}//${url.host}`;
}

function table(rows: readonly string[][]): string {
  const widths = (rows[0] ?? []).map((_, column) =>
    Math.max(...rows.map((row) => (row[column] ?? '').length)),
  );
  return rows
    .map((row) => `  ${row.map((cell, column) => cell.padEnd(widths[column] ?? 0)).join('   ')}`.trimEnd())
    .join('\n');
}

function seconds(milliseconds: number): string {
  return `${(milliseconds / 1_000).toFixed(1)} s`;
}
