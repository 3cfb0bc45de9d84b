/**
 * A real Prometheus that scrapes a running system: every query of the dashboards finds series, no alert is active while
 * everything works, and faults make their alerts active.
 */

import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { credentials } from '@grpc/grpc-js';
import { connect } from 'nats';
import { parse, stringify } from 'yaml';
import { AuthServiceClient } from '../../proto/gen/auth/v1/auth_service.js';
import { ask } from '../../scripts/system/calls.js';
import { findFreePort } from '../../scripts/system/ports.js';
import type { Board } from '../shared/board.js';
import { holdsWithin, waitUntil } from '../shared/waiting.js';
import {
  DASHBOARDS,
  filledIn,
  PROMETHEUS_FILE,
  queriesOf,
  RULES_FILE,
  readDashboard,
  readRules,
} from './monitoring-files.js';
import { type Program, startProgram } from './programs.js';
import { startWatched, type Target, type Watched } from './watched-system.js';

/** The window for rates; scrapes are a second apart. */
const RATE_WINDOW = '20s';
const TRAFFIC_ROUNDS = 12;
const ROUND_PAUSE_MS = 1_500;
const READY_MS = 20_000;
const POLL_MS = 500;

/** How long an alert may take to become active, or to end. Canary tokens of an instance that is gone take the bound. */
const ALERT_MS = 45_000;

/** Alerts that a machine without processor time causes, whatever the system does. */
const OF_SLOW_MACHINES = [
  'PortcullisEventLoopBusy',
  'PortcullisLeaseShort',
  'PortcullisRevocationsSlow',
  'PortcullisRevocationsSlowBudget',
];

const PEER = 'Prometheus';

/** Runs the part. */
export async function checkPrometheus(program: string, board: Board, signal: AbortSignal): Promise<void> {
  const watched = await startWatched(signal);
  let server: PrometheusServer | undefined;
  try {
    server = await PrometheusServer.start(program, watched.environment.folder, watched.targets());
    for (let round = 0; round < TRAFFIC_ROUNDS; round++) {
      signal.throwIfAborted();
      await watched.makeTraffic();
      await sleep(ROUND_PAUSE_MS);
    }
    await checkScrapes(server, watched, board);
    await checkDashboards(server, board);
    await checkSilence(server, board);
    for (const fault of faultsOf(watched)) {
      signal.throwIfAborted();
      await checkFault(server, fault, board);
    }
  } finally {
    await server?.stop();
    await watched.stop();
  }
}

async function checkScrapes(server: PrometheusServer, watched: Watched, board: Board): Promise<void> {
  const up = await server.query('sum(up)');
  board.same(PEER, 'scrapes every process', String(watched.targets().length), up[0]?.value[1]);
  const { alerts, records } = await readRules();
  const rules = await server.rules();
  board.same(PEER, 'has every rule', alerts.length + records.length, rules.length);
  const faulty = rules
    .filter(({ health }) => health !== 'ok')
    .map(({ name, lastError }) => [name, lastError]);
  board.same(PEER, 'evaluates every rule', [], faulty);
}

async function checkDashboards(server: PrometheusServer, board: Board): Promise<void> {
  for (const name of DASHBOARDS) {
    for (const { panel, expr } of queriesOf(await readDashboard(name))) {
      const found = await server.query(filledIn(expr, RATE_WINDOW)).catch((error: unknown) => error);
      const series = Array.isArray(found) ? found.length : 0;
      board.holds(PEER, `dashboard ${name}, ${panel}: ${expr}`, series > 0, `no series: ${String(found)}`);
    }
  }
}

async function checkSilence(server: PrometheusServer, board: Board): Promise<void> {
  const active = (await server.activeAlerts()).filter((name) => !OF_SLOW_MACHINES.includes(name));
  board.same(PEER, 'no alert is active while everything works', [], active);
}

/** Something that goes wrong, and the alerts for it. */
interface Fault {
  readonly name: string;
  readonly alerts: readonly string[];
  cause(): Promise<void>;
  /** Undefined for what has happened once and for all: such alerts end after their window. */
  readonly repair: (() => Promise<void>) | undefined;
}

async function checkFault(server: PrometheusServer, fault: Fault, board: Board): Promise<void> {
  const { name, alerts, cause, repair } = fault;
  await cause();
  for (const alert of alerts) {
    const isActive = await holdsWithin(ALERT_MS, POLL_MS, async () =>
      (await server.activeAlerts()).includes(alert),
    );
    board.holds(PEER, `${alert} becomes active: ${name}`, isActive, 'it did not');
  }
  const wrong = (await server.activeAlerts()).flatMap((alert) => (/error|NaN/.test(alert) ? [alert] : []));
  board.same(PEER, `annotations of alerts can be read: ${name}`, [], wrong);
  if (repair === undefined) return;
  await repair();
  const [first = ''] = alerts;
  const hasEnded = await holdsWithin(
    ALERT_MS,
    POLL_MS,
    async () => !(await server.activeAlerts()).includes(first),
  );
  board.holds(PEER, `${first} ends after the repair: ${name}`, hasEnded, 'it did not');
}

function faultsOf({ system }: Watched): readonly Fault[] {
  const { nats, postgres, payment, inventory } = system;
  const [upstream] = inventory;
  if (nats === undefined || postgres === undefined) {
    throw new TypeError('this part needs private servers: unset DATABASE_URL and NATS_URL');
  }
  const restart = (one: typeof payment) => async (): Promise<void> => {
    await one.launch();
    await one.ready();
  };
  return [
    {
      name: 'a message that is not signed',
      alerts: ['PortcullisForgedMessages'],
      cause: () => publishJunk(nats.url('test')),
      repair: undefined,
    },
    {
      name: 'a password is guessed',
      alerts: ['PortcullisAnomalies'],
      cause: () => guessPassword(system.auth.address, system.users.bob.username),
      repair: undefined,
    },
    {
      name: 'the broker is stopped',
      alerts: ['PortcullisBrokerDisconnected'],
      cause: () => nats.stop(),
      repair: () => nats.restart(),
    },
    {
      name: 'a service is killed',
      alerts: ['PortcullisInstanceDown', 'PortcullisCanaryUnconfirmed'],
      cause: async () => {
        payment.kill('SIGKILL');
        await payment.ended();
      },
      repair: restart(payment),
    },
    {
      name: 'the server behind the gate stops',
      alerts: ['PortcullisGateUpstreamDown'],
      cause: () => upstream.stop(),
      repair: restart(upstream),
    },
    {
      name: 'the database is stopped',
      alerts: ['PortcullisDatabaseUnreachable', 'PortcullisSyncFailing', 'PortcullisInstanceStale'],
      cause: () => postgres.stop(),
      repair: () => postgres.restart(),
    },
  ];
}

async function publishJunk(natsUrl: string): Promise<void> {
  const { host, username, password } = new URL(natsUrl);
  const connection = await connect({ servers: host, user: username, pass: decodeURIComponent(password) });
  connection.publish('portcullis.v1.revocations', Buffer.from('junk'));
  await connection.drain();
}

/** As often as the rule `name-guessed` needs, and some more. */
const GUESSES = 14;

async function guessPassword(address: string, username: string): Promise<void> {
  const auth = new AuthServiceClient(address, credentials.createInsecure());
  try {
    for (let guess = 0; guess < GUESSES; guess++) {
      const login = { username, password: `guess-${guess}`, audiences: [], scopes: [], deviceName: '' };
      await ask(auth.login.bind(auth), login).catch(() => undefined);
    }
  } finally {
    auth.close();
  }
}

/** A sample of an answer: labels, and time and value. */
interface Sample {
  readonly metric: Readonly<Record<string, string>>;
  readonly value: readonly [number, string];
}

/** A rule, as Prometheus reports it. */
interface ReportedRule {
  readonly name: string;
  readonly health: string;
  readonly lastError?: string;
}

/** Prometheus as a process, with the rules of the documentation. */
class PrometheusServer {
  readonly #program: Program;
  readonly #address: string;

  private constructor(program: Program, address: string) {
    this.#program = program;
    this.#address = address;
  }

  static async start(program: string, folder: string, targets: readonly Target[]): Promise<PrometheusServer> {
    const file = join(folder, 'prometheus.yaml');
    await writeFile(file, await configuration(targets));
    const address = `127.0.0.1:${await findFreePort()}`;
    const running = startProgram(program, [
      `--config.file=${file}`,
      `--storage.tsdb.path=${join(folder, 'prometheus')}`,
      `--web.listen-address=${address}`,
      '--log.level=warn',
    ]);
    const server = new PrometheusServer(running, address);
    try {
      await waitUntil(() => server.#isReady(), {
        timeoutMs: READY_MS,
        pollMs: POLL_MS,
        failure: 'Prometheus does not get ready',
      });
      // It has ended, and says why.
      if (!running.isRunning) await running.line(() => false);
    } catch (error) {
      await running.stop();
      throw error;
    }
    return server;
  }

  async #isReady(): Promise<boolean> {
    if (!this.#program.isRunning) return true;
    const response = await fetch(`http://${this.#address}/-/ready`).catch(() => undefined);
    return response?.status === 200;
  }

  /** Evaluates a query now. @throws Error with what Prometheus says about it */
  async query(expr: string): Promise<readonly Sample[]> {
    const { result } = await this.#get<{ result: readonly Sample[] }>('query', { query: expr });
    return result;
  }

  /** Names of the alerts that are pending or firing; one with an annotation that cannot be filled in says so. */
  async activeAlerts(): Promise<readonly string[]> {
    const { alerts } = await this.#get<{
      alerts: readonly { labels: { alertname: string }; annotations: { summary: string } }[];
    }>('alerts');
    const names = alerts.map(({ labels, annotations }) =>
      annotations.summary.includes('<error') ? `${labels.alertname} (error)` : labels.alertname,
    );
    return [...new Set(names)].sort();
  }

  async rules(): Promise<readonly ReportedRule[]> {
    const { groups } = await this.#get<{ groups: readonly { rules: readonly ReportedRule[] }[] }>('rules');
    return groups.flatMap(({ rules }) => rules);
  }

  async #get<T>(what: string, parameters: Readonly<Record<string, string>> = {}): Promise<T> {
    const url = `http://${this.#address}/api/v1/${what}?${new URLSearchParams(parameters).toString()}`;
    const answer = (await (await fetch(url)).json()) as { status: string; error?: string; data: T };
    if (answer.status !== 'success') throw new Error(answer.error ?? answer.status);
    return answer.data;
  }

  stop(): Promise<void> {
    return this.#program.stop();
  }
}

/** The example of the documentation, with the ports of this system and an interval of a second. */
async function configuration(targets: readonly Target[]): Promise<string> {
  const example = parse(await readFile(PROMETHEUS_FILE, 'utf8')) as {
    readonly scrape_configs: readonly { readonly job_name: string }[];
  };
  return stringify({
    global: { scrape_interval: '1s', evaluation_interval: '1s' },
    rule_files: [RULES_FILE],
    scrape_configs: example.scrape_configs.map(({ job_name: job }) => ({
      job_name: job,
      static_configs: [
        { targets: targets.filter((target) => target.job === job).map(({ address }) => address) },
      ],
    })),
  });
}
