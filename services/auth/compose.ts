/** Auth as a service: its parts, its connection to the broker and its work in the background. */

import { registerStateMetrics } from '@portcullis/guard/metrics';
import type { Report } from '../../proto/gen/portcullis/security/v1/report.js';
import { ConfigurationError } from '../common/config/env.js';
import {
  type RunningService,
  runService,
  type ServiceParts,
  type ServiceResources,
} from '../common/host/run-service.js';
import { untilAvailable } from '../common/host/start-step.js';
import { applyBootstrap, UnknownRoleError } from './accounts/bootstrap.js';
import { OWN_AUDIENCE } from './accounts/roles.js';
import { type Broadcaster, createBroadcaster } from './adapters/broadcaster.js';
import { registerCanaryMetrics } from './adapters/canary-metrics.js';
import { reportOf } from './adapters/report-messages.js';
import { type ReportReceiver, receiveReports } from './adapters/report-receiver.js';
import { createRevocationSource } from './adapters/revocation-source.js';
import { createWellKnownRoutes } from './adapters/well-known.js';
import type { Config } from './config.js';
import { type Console, openConsole } from './console/console.js';
import { startHousekeeping } from './housekeeping.js';
import { UnusableKeyError } from './keys/sealed-keys.js';
import { authMetrics, createStoredFacts, type StoredFacts } from './metrics.js';
import { createParts, type Parts } from './parts.js';
import type { LogBatch } from './records/revocations.js';
import { type CanaryObserver, measureRevocation } from './revocation/canary.js';
import { createCanaryStore } from './revocation/canary-store.js';
import { PROCESSING_INTERVAL_MS } from './security/anomaly-watch.js';
import { createServices } from './services.js';
import { deleteExpired } from './store.js';

/** The migrations of auth's database. */
export const MIGRATIONS = new URL('./migrations/', import.meta.url);

/** Pause between two rounds that drop expired entries, in milliseconds: until then instances keep them, too. */
const PURGE_INTERVAL_MS = 5000;

/** Runs auth until a signal stops it. */
export async function runAuth(config: Config): Promise<void> {
  await runService({
    name: OWN_AUDIENCE,
    config,
    migrations: MIGRATIONS,
    compose: (resources) => composeAuth(config, resources),
  });
}

function composeAuth(config: Config, resources: ServiceResources): ServiceParts {
  const relay = createBatchRelay();
  const parts = createParts(config, { ...resources, onRevoked: relay.publish });
  const broker = openBroker(config, resources, parts, relay);
  const stored = createStoredFacts(parts);
  registerMetrics(config, resources, parts, { broker, stored });
  const canary = registerCanaryMetrics(resources.registry, {
    intervalSeconds: config.canarySeconds,
    clock: parts.clock,
  });
  const source = createRevocationSource(parts.revocations, relay.subscribe);
  const preparation = createPreparation();
  let openedConsole: Console | undefined;
  return {
    auth: { source, report: (message) => takeOwnReport(config, parts, message) },
    services: createServices({ ...parts, source }),
    readiness: { keys: preparation.missing },
    brokerUses: () =>
      broker === undefined
        ? []
        : [
            { use: 'broadcasts', state: broker.broadcaster.brokerState() },
            { use: 'reports', state: broker.receiver.brokerState() },
          ],
    routes: createWellKnownRoutes({
      issuer: config.issuer,
      publicKeys: parts.publicKeys,
      receiptKeys: parts.receipts.keys,
    }),
    routesListen: keysPortOf(config),
    // The console's requests under way call auth, so they end before auth's calls are drained.
    endStreams: async () => await openedConsole?.close(),
    start: async (running) => {
      startBackgroundWork(resources, parts, stored);
      await prepare(config, resources, parts, stored, running);
      preparation.done();
      running.readinessChanged();
      running.guard.syncNow();
      startCanary(config, resources, parts, { observer: canary, running });
      openedConsole = await startConsole(config, resources, parts, running);
    },
  };
}

function keysPortOf({ keysListen: address }: Config): ServiceParts['routesListen'] {
  return address === undefined ? undefined : { address, variable: 'PORTCULLIS_KEYS_LISTEN' };
}

/** Passes on the entries that this process has appended to the revocation log, so that it does not depend on the broker. */
interface BatchRelay {
  publish(batch: LogBatch): void;
  subscribe(listener: (batch: LogBatch) => void): void;
}

function createBatchRelay(): BatchRelay {
  const listeners: ((batch: LogBatch) => void)[] = [];
  return {
    publish: (batch) => {
      for (const listener of listeners) listener(batch);
    },
    subscribe: (listener) => void listeners.push(listener),
  };
}

/** The two users of the broker: the sender of broadcasts and the receiver of reports. */
interface Broker {
  readonly broadcaster: Broadcaster;
  readonly receiver: ReportReceiver;
}

function openBroker(
  { natsUrl: url, natsCredentials, issuer }: Config,
  { tls, log, closer }: ServiceResources,
  { keys, store, events, clock }: Parts,
  relay: BatchRelay,
): Broker | undefined {
  if (url === undefined) {
    log.warn('without a broker, only syncs deliver revocations');
    return undefined;
  }
  const files = { ...tls.broker, ...natsCredentials };
  const broadcaster = createBroadcaster({ url, files, signer: keys.broadcastSigner(), log });
  closer.add('broadcaster', broadcaster.close);
  relay.subscribe(broadcaster.publish);
  const receiver = receiveReports({
    url,
    files,
    issuer,
    wallMs: clock.wallMs,
    log,
    findClient: (clientId) => store.transaction((tx) => tx.clients.find(clientId)),
    record: events.recordReport,
    onForged: () =>
      events.noteSampled('report-forged', {
        type: 'broadcasts-forged',
        actor: 'auth',
        network: '',
        subject: {},
        details: { messages: 1 },
        reason: 'a message on the broker is not a valid report, or not signed by the client that it names',
      }),
  });
  closer.add('report receiver', receiver.close);
  return { broadcaster, receiver };
}

function registerMetrics(
  { keyRotationDays }: Config,
  { registry }: ServiceResources,
  { counts, clock, events, instances, queues, reEncryption }: Parts,
  { broker, stored }: { readonly broker: Broker | undefined; readonly stored: StoredFacts },
): void {
  registerStateMetrics(
    registry,
    authMetrics(counts, {
      clock,
      events: events.counts,
      reports: () => broker?.receiver.counts() ?? { recorded: 0, forged: 0 },
      broadcasts: () => broker?.broadcaster.state() ?? { sent: 0, dropped: 0 },
      instances: instances.known,
      queues,
      stored,
      keysLeft: reEncryption.left,
      keyRotationDays,
    }),
  );
}

/** Records auth's own report directly, without the broker. */
async function takeOwnReport({ issuer }: Config, { events, clock }: Parts, message: Report): Promise<void> {
  const report = reportOf(message, { source: OWN_AUDIENCE, issuer, wallMs: clock.wallMs });
  if (report !== undefined) await events.recordReport(report);
}

/** Whether the database has its keys and its first accounts. */
function createPreparation(): { missing(): string; done(): void } {
  let missing = 'keys and first accounts are not prepared yet';
  return {
    missing: () => missing,
    done: () => {
      missing = '';
    },
  };
}

function startBackgroundWork(
  { log, database, closer }: ServiceResources,
  parts: Parts,
  stored: StoredFacts,
): void {
  const { revocations, instances, fences, keyLife, securityStore, anomalies, narrowings, receipts } = parts;
  const housekeeping = startHousekeeping({
    log,
    chores: {
      instances: () => instances.deleteSilent(),
      fences: () => fences.deleteSilent(),
      narrowings: () => narrowings.resume(),
      keys: async () => {
        await keyLife.maintain();
        await reEncrypt(log, parts);
      },
      // After the others: it reads what they have left.
      facts: () => stored.refresh(),
      events: () => securityStore.keepPartitions(),
      receipts: () => receipts.deleteOld(),
      accounts: () => deleteExpired(database),
    },
  });
  closer.add('housekeeping', housekeeping.stop);
  const purge = startHousekeeping({
    log,
    intervalMs: PURGE_INTERVAL_MS,
    // Receipts first: they are made of the entries that the purge drops.
    chores: { receipts: () => receipts.closeDue(), revocations: () => revocations.purge() },
  });
  closer.add('purge', purge.stop);
  const processing = startHousekeeping({
    log,
    intervalMs: PROCESSING_INTERVAL_MS,
    chores: { anomalies: () => anomalies.process() },
  });
  closer.add('anomaly watch', processing.stop);
}

/** How often a replica looks whether it is its turn, within the time between two measurements. */
const CANARY_LOOKS = 5;

/** Measures revocations in regular intervals, if that is configured. */
function startCanary(
  { canarySeconds: intervalSeconds }: Config,
  { database, log, closer }: ServiceResources,
  { promiseStore: store, groups, tokens, instances, fences, clock }: Parts,
  { observer, running }: { readonly observer: CanaryObserver; readonly running: RunningService },
): void {
  if (intervalSeconds === 0) return;
  const { signal, guard } = running;
  const turns = createCanaryStore(database.lane('promise'));
  const accept = async (token: string): Promise<string> =>
    (await guard.authenticateToken(token, OWN_AUDIENCE)).tokenId;
  const deps = {
    intervalSeconds,
    turns,
    store,
    groups,
    tokens,
    instances,
    fences,
    accept,
    observer,
    clock,
    log,
  };
  const canary = startHousekeeping({
    log,
    intervalMs: (intervalSeconds * 1000) / CANARY_LOOKS,
    chores: { canary: () => measureRevocation(deps, signal) },
  });
  closer.add('canary', canary.stop);
}

/** Opens the console, if that is configured. */
async function startConsole(
  { consoleListen: address, consoleOrigin: origin, opsConnectionsMax, opsRequestsPerAddress }: Config,
  { tls, log, closer }: ServiceResources,
  { clock }: Parts,
  { local, watchHttpPort, signal }: RunningService,
): Promise<Console | undefined> {
  if (address === undefined || signal.aborted) return undefined;
  const opened = await openConsole({
    listen: { address, variable: 'PORTCULLIS_CONSOLE_LISTEN' },
    origin,
    tls: tls.listener?.watch,
    local,
    connectionsMax: opsConnectionsMax,
    requestsPerAddress: opsRequestsPerAddress,
    log,
    clock,
  });
  watchHttpPort('PORTCULLIS_CONSOLE_LISTEN', opened.port);
  closer.add('console', opened.close);
  return opened;
}

/** Makes keys, lease, lifetime of tokens and first accounts; repeated for as long as the database cannot be reached. */
async function prepare(
  config: Config,
  { log }: ServiceResources,
  parts: Parts,
  stored: StoredFacts,
  { signal }: Pick<RunningService, 'signal'>,
): Promise<void> {
  try {
    await untilAvailable(() => prepareOnce(config, log, parts), { signal, log });
    await untilAvailable(() => stored.refresh(), { signal, log });
  } catch (error) {
    throw explainUnknownRole(explainUnusableKey(error));
  }
}

async function prepareOnce(
  { leaseMs, accessTokenSeconds, bootstrap }: Config,
  log: ServiceResources['log'],
  parts: Parts,
): Promise<void> {
  await parts.keys.open();
  await parts.secrets.open();
  // What fails is tried again by the housekeeping: the service does not wait for it.
  await reEncrypt(log, parts).catch((error: unknown) =>
    log.warn({ err: error }, 'could not encrypt the keys under the new key-encryption key yet'),
  );
  await parts.revocationLog.setLeaseMs(leaseMs);
  await parts.revocationLog.setTokenSeconds(accessTokenSeconds);
  const created = await applyBootstrap(bootstrap, parts);
  if (created.policy) {
    log.info('set the policy of the bootstrap file');
    // Sessions may have more than it grants. What is left of this, the housekeeping does.
    await parts.narrowings.resume();
  }
  if (created.users + created.clients > 0)
    log.info(created, 'created users and clients of the bootstrap file');
  if (created.lookAlikes.length > 0) {
    log.warn(created, 'did not create some users of the bootstrap file: their names look like existing ones');
  }
}

/** A database whose policy lacks a role cannot have its users: the operator adds the role to the file or to the policy. */
function explainUnknownRole(error: unknown): unknown {
  if (!(error instanceof UnknownRoleError)) return error;
  const problem = `does not fit the database: ${error.message}. A new database takes services and roles from the member "policy" of the file; the policy of one in use is changed with ApplyPolicy`;
  return new ConfigurationError([{ variable: 'PORTCULLIS_BOOTSTRAP_FILE', problem }]);
}

/** Continues what is left of a replacement of the key-encryption key. */
async function reEncrypt(log: ServiceResources['log'], { reEncryption }: Parts): Promise<void> {
  const done = await reEncryption.run();
  if (done.replaced === 0) return;
  log.warn(
    { event: 'key_encryption_key_replaced', ...done },
    'encrypted keys under the new key-encryption key',
  );
}

/** A key that cannot be decrypted almost always means another key-encryption key, which the operator has to correct. */
export function explainUnusableKey(error: unknown): unknown {
  if (!(error instanceof UnusableKeyError)) return error;
  const problem = `does not fit the database: ${error.message}`;
  return new ConfigurationError([{ variable: 'PORTCULLIS_KEY_ENCRYPTION_KEY', problem }]);
}
