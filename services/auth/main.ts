/** Auth as a process: the one place where its parts are put together. */

import { randomUUID } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';
import { createGuard, ServiceError, systemClock } from '@portcullis/guard';
import { AuthServiceService, protoMetadata as authMetadata } from '../../proto/gen/auth/v1/auth_service.js';
import {
  ClientServiceService,
  protoMetadata as clientMetadata,
} from '../../proto/gen/auth/v1/client_service.js';
import { KeyServiceService, protoMetadata as keyMetadata } from '../../proto/gen/auth/v1/key_service.js';
import {
  SecurityServiceService,
  protoMetadata as securityMetadata,
} from '../../proto/gen/auth/v1/security_service.js';
import { UserServiceService, protoMetadata as userMetadata } from '../../proto/gen/auth/v1/user_service.js';
import {
  RevocationServiceService,
  protoMetadata as revocationMetadata,
} from '../../proto/gen/portcullis/revocation/v1/revocation.js';
import type { Report } from '../../proto/gen/portcullis/security/v1/report.js';
import { ConfigurationError } from '../common/config/env.js';
import { type Database, openDatabase } from '../common/database/database.js';
import { hostMethods, startHost } from '../common/host/host.js';
import { createLog, flushLog, type Log } from '../common/host/log.js';
import { exitWith, runMain, runUntilSignal } from '../common/host/process.js';
import { createGuardMetrics } from '../common/metrics/guard-metrics.js';
import { registerStateMetrics } from '../common/metrics/state-metrics.js';
import { openTls } from '../common/tls/tls.js';
import { createAccountChanges } from './accounts/account-changes.js';
import { applyBootstrap } from './accounts/bootstrap.js';
import { createPasswords } from './accounts/passwords.js';
import { OWN_AUDIENCE } from './accounts/roles.js';
import { createUsers } from './accounts/users.js';
import { type Broadcaster, createBroadcaster } from './adapters/broadcaster.js';
import { createForeignTokens } from './adapters/foreign-tokens.js';
import { reportOf } from './adapters/report-messages.js';
import { type ReportReceiver, receiveReports } from './adapters/report-receiver.js';
import { createRevocationSource } from './adapters/revocation-source.js';
import { createTokenVerifier } from './adapters/token-verifier.js';
import { createWellKnownRoutes } from './adapters/well-known.js';
import { createClients } from './clients/clients.js';
import { createClientHandlers } from './clients/handlers.js';
import { type Config, parseConfig, reviewSettingsOf } from './config.js';
import { startHousekeeping } from './housekeeping.js';
import { createFingerprint, deriveSecret } from './keys/derived-secrets.js';
import { createKeyHandlers } from './keys/handlers.js';
import { createKeyLife, type Rotation } from './keys/key-life.js';
import { createKeys, createPublicKeys, UnusableKeyError } from './keys/keys.js';
import { readPublishedKeys } from './keys/store.js';
import { createAuthCounts } from './metrics.js';
import type { KeyPurpose } from './records/keys.js';
import type { LogBatch } from './records/revocations.js';
import { createEpochs } from './revocation/epochs.js';
import { createRevocationHandlers } from './revocation/handlers.js';
import { createInstanceStore } from './revocation/instance-store.js';
import { createInstances } from './revocation/instances.js';
import type { SyncQuestion } from './revocation/log.js';
import { createRevocations } from './revocation/revocations.js';
import { createRevocationStore } from './revocation/store.js';
import { createAnomalyWatch, JUDGING_INTERVAL_MS } from './security/anomaly-watch.js';
import { createSecurityLog } from './security/event-log.js';
import { createSecurityHandlers } from './security/handlers.js';
import { createSecurityReview } from './security/review.js';
import { createReviewFacts } from './security/review-facts.js';
import { createReviewStore } from './security/review-store.js';
import { createSecurityStore } from './security/store.js';
import { createThrottle } from './security/throttle.js';
import { createAttemptCounters } from './security/throttle-store.js';
import { createAuthHandlers, createUserHandlers } from './sessions/handlers.js';
import { createLoginFailures } from './sessions/login-failures.js';
import { createSessions } from './sessions/sessions.js';
import { clean, createAuthStore } from './store.js';
import { createExchange } from './tokens/exchange.js';
import { createServiceTokens } from './tokens/service-tokens.js';
import { createTokens } from './tokens/tokens.js';

const SERVICE_NAMES = [
  'auth.v1.AuthService',
  'auth.v1.ClientService',
  'auth.v1.KeyService',
  'auth.v1.SecurityService',
  'auth.v1.UserService',
  'portcullis.revocation.v1.RevocationService',
];

/** Most security events that one round drops. */
const EVENTS_DROPPED_MAX = 5000;

/** The pause between two attempts to prepare the database, in milliseconds. */
const PREPARE_RETRY_MS = 250;

/** Begins the revocation log anew and ends, instead of serving; what follows it is the reason. */
const OPEN_EPOCH = 'open-epoch';

const MIGRATIONS = new URL('./migrations/', import.meta.url);

await runMain(async () => {
  const [command, ...words] = process.argv.slice(2);
  const config = parseConfig(process.env);
  if (command === undefined) return serve(config);
  if (command === OPEN_EPOCH) return openEpoch(config, words.join(' '));
  return exitWith(`unknown command ${command}; without one auth serves, and ${OPEN_EPOCH} is the only other`);
});

async function serve(config: Config): Promise<void> {
  const { issuer, natsUrl } = config;
  const log = createLog({ service: OWN_AUDIENCE, level: config.logLevel });
  const tls = openTls(config.tls, { log });
  const database = openDatabase({ url: config.databaseUrl, migrations: MIGRATIONS, log });

  let broadcaster: Broadcaster | undefined;
  // This process need not wait for the broker, which may be away or frozen, to tell it what it has done itself.
  let follower = (_: LogBatch): void => {};
  let signingSince: ReadonlyMap<KeyPurpose, Date> = new Map();
  const onRevoked = (batch: LogBatch): void => {
    broadcaster?.publish(batch);
    follower(batch);
  };
  const parts = createParts(config, { database, log, onRevoked });
  const source = createRevocationSource(parts.revocations, (onWritten) => {
    follower = onWritten;
  });
  const metrics = createGuardMetrics();
  const guard = await createGuard({
    issuer,
    audience: OWN_AUDIENCE,
    auth: { source, report: parts.takeOwnReport },
    nats: natsUrl === undefined ? undefined : { url: natsUrl, files: tls.broker },
    plaintext: config.tls.plaintext,
    publicMethods: hostMethods(config),
    log,
    observer: metrics.observer,
  });
  metrics.attach(guard);
  let receiver: ReportReceiver | undefined;
  registerStateMetrics(
    metrics.registry,
    parts.counts.read({
      clock: systemClock,
      events: parts.events.counts,
      reports: () => receiver?.counts() ?? { taken: 0, forged: 0 },
      broadcasts: () => broadcaster?.state() ?? { sent: 0, dropped: 0 },
      instances: parts.instances.asked,
      signingSince: () => signingSince,
    }),
  );

  let unprepared = 'keys and first accounts are not prepared yet';
  const host = await startHost({
    service: OWN_AUDIENCE,
    listen: config.listen,
    opsListen: config.opsListen,
    log,
    registry: metrics.registry,
    reflection: config.reflection,
    drainMs: config.drainMs,
    interceptors: [guard.interceptor],
    tls: tls.listener,
    addServices: (server) => {
      const revocationHandlers = createRevocationHandlers({ ...parts, source });
      guard.addService(server, AuthServiceService, authMetadata, createAuthHandlers(parts));
      guard.addService(server, UserServiceService, userMetadata, createUserHandlers(parts));
      guard.addService(server, ClientServiceService, clientMetadata, createClientHandlers(parts));
      guard.addService(server, KeyServiceService, keyMetadata, createKeyHandlers(parts));
      guard.addService(server, SecurityServiceService, securityMetadata, createSecurityHandlers(parts));
      guard.addService(server, RevocationServiceService, revocationMetadata, revocationHandlers);
    },
    serviceNames: SERVICE_NAMES,
    readiness: {
      database: database.missing,
      keys: () => unprepared,
      revocations: () => guard.state().missing,
    },
    routes: createWellKnownRoutes({ issuer, publicKeys: parts.publicKeys }),
  });
  guard.onStateChange(host.readinessChanged);
  database.onStateChange(host.readinessChanged);
  if (natsUrl === undefined) log.warn('without a broker revocations travel by sync alone');
  else
    broadcaster = createBroadcaster({
      url: natsUrl,
      files: tls.broker,
      signer: parts.keys.broadcastSigner(),
      log,
    });

  if (natsUrl !== undefined) {
    receiver = receiveReports({
      ...{ url: natsUrl, files: tls.broker, issuer, wallMs: systemClock.wallMs },
      findClient: (clientId) => parts.store.transaction((tx) => tx.clients.find(clientId)),
      take: parts.events.takeReport,
      onForged: parts.reportForged,
    });
  }

  const chores = {
    revocations: () => parts.revocations.purge(),
    instances: () => parts.instances.forgetSilent(),
    keys: async () => {
      await parts.keyLife.tend();
      signingSince = await parts.keyLife.signingSince();
    },
    events: () => parts.securityStore.dropExpired(EVENTS_DROPPED_MAX),
    accounts: () => clean(database),
  };
  const housekeeping = startHousekeeping({ chores, log });
  const judging = startHousekeeping({
    chores: { anomalies: () => parts.anomalies.judge() },
    log,
    intervalMs: JUDGING_INTERVAL_MS,
  });
  const stopping = new AbortController();
  runUntilSignal({
    log,
    drainMs: config.drainMs,
    reload: tls.reload,
    stop: async () => {
      stopping.abort();
      await host.stop();
      await housekeeping.stop();
      await receiver?.close();
      await broadcaster?.close();
      await guard.close();
      await judging.stop();
      await parts.events.close();
      await parts.instances.close();
      parts.foreignTokens.close();
      await database.close();
      tls.close();
    },
  });

  try {
    await prepare(database, stopping.signal, async () => {
      await parts.keys.open();
      await parts.log.setLeaseMs(config.leaseMs);
      const created = await applyBootstrap(config.bootstrap, parts);
      if (created.users + created.clients > 0) log.info(created, 'created what the bootstrap file names');
      if (created.lookAlikes.length > 0) {
        log.warn(created, 'users of the bootstrap file have names that look like those of others');
      }
    });
    signingSince = await parts.keyLife.signingSince();
    unprepared = '';
    host.readinessChanged();
    guard.askNow();
  } catch (error) {
    if (!stopping.signal.aborted) exitWith(explain(error));
  }
}

/**
 * For operators whose own tokens no longer count, because the log is not the one that auth has followed. Whoever can
 * run this has the database and the key that encrypts its keys, so it asks for no further proof.
 */
async function openEpoch(config: Config, reason: string): Promise<void> {
  const log = createLog({ service: OWN_AUDIENCE, level: config.logLevel });
  const database = openDatabase({ url: config.databaseUrl, migrations: MIGRATIONS, log });
  const { keys, epochs, foreignTokens } = createParts(config, { database, log, onRevoked: () => undefined });
  try {
    await database.ready(new AbortController().signal);
    // Keys that do not open tell that this is not the database's key-encryption key.
    await keys.open();
    const opened = await epochs.open({ reason, actor: 'operator', requestId: randomUUID() });
    log.warn({ ...opened, epoch: opened.epoch.toString('hex') }, 'an epoch was opened');
    await flushLog(log);
  } catch (error) {
    throw explain(error);
  } finally {
    foreignTokens.close();
    await database.close();
  }
}

/** The domain, put together. */
function createParts(
  config: Config,
  outside: { database: Database; log: Log; onRevoked: (batch: LogBatch) => void },
) {
  const { issuer, keyEncryptionKey, signingAlgorithm, accessTokenSeconds, loginLimits } = config;
  const { database, onRevoked } = outside;
  const clock = systemClock;
  const securityStore = createSecurityStore(database);
  const events = createSecurityLog({ store: securityStore, clock, log: outside.log });
  const counts = createAuthCounts();
  const store = createAuthStore({ database, onRevoked, events: events.observer });
  const failures = createLoginFailures({ events, key: deriveSecret(keyEncryptionKey, 'event-names') });
  const keys = createKeys({ store, keyEncryptionKey, algorithm: signingAlgorithm });
  const verifyToken = createTokenVerifier(issuer);
  const tokens = createTokens({ issuer, accessTokenSeconds, keys, verifyToken });
  const passwords = createPasswords();
  const fingerprint = createFingerprint(deriveSecret(keyEncryptionKey, 'request-fingerprint'));
  const foreignTokens = createForeignTokens({
    issuers: config.trustedIssuers,
    ownIssuer: issuer,
    plaintext: config.tls.plaintext,
    log: outside.log,
  });
  const exchange = createExchange({ store, tokens, foreignTokens });
  const log = createRevocationStore({ database, publishedKeys: readPublishedKeys });
  const onLogChanged = ({ service, applied, epoch }: SyncQuestion): void => {
    events.noteSampled(`log-changed ${service}`, {
      ...{ type: 'log-changed', actor: 'auth', network: '', subject: { service }, details: {} },
      reason: 'an instance has seen revocations, or an epoch, that the database does not have',
    });
    outside.log.error(
      { event: 'log_changed', instanceOf: service, applied, epoch: epoch.toString('hex') },
      'an instance has seen revocations, or an epoch, that the database does not have: it was restored or lost transactions',
    );
  };
  const guesses = {
    counters: createAttemptCounters(database),
    clock,
    limits: loginLimits,
    key: deriveSecret(keyEncryptionKey, 'attempt-counters'),
  };
  const throttle = createThrottle({ ...guesses, purpose: 'login' });
  const { tokenIdOf } = exchange;
  const instances = createInstances({ store: createInstanceStore(database), clock });
  const replenishSoon = (): void =>
    void keys
      .replenish()
      .catch((error: unknown) => outside.log.warn({ err: error }, 'no further key could be made yet'));
  const onRotated = ({ signingKey, formerKey, revocation }: Rotation): void =>
    outside.log.warn(
      {
        event: 'key_rotated',
        purpose: signingKey.purpose,
        kid: signingKey.kid,
        formerKid: formerKey.kid,
        emergency: revocation !== undefined,
      },
      'another key signs',
    );
  return {
    store,
    foreignTokens,
    keys,
    keyLife: createKeyLife({
      store,
      keys,
      rotationDays: config.keyRotationDays,
      onRotated,
      onNextMissing: replenishSoon,
    }),
    instances,
    counts,
    events,
    securityStore,
    anomalies: createAnomalyWatch({
      store,
      events: securityStore,
      revoking: config.anomaliesRevoke,
      onFinding: ({ subject, details }, action) => {
        counts.anomalyFound(details.rule);
        outside.log.warn(
          { event: 'anomaly_detected', ...details, about: subject, action },
          'an anomaly was found',
        );
      },
    }),
    review: createSecurityReview(
      createReviewFacts({
        store: createReviewStore(database),
        settings: reviewSettingsOf(config),
        ...{ instances, passwords, clock },
      }),
    ),
    takeOwnReport: async (message: Report) => {
      const report = reportOf(message, { source: OWN_AUDIENCE, issuer, wallMs: clock.wallMs });
      if (report !== undefined) await events.takeReport(report);
    },
    reportForged: () =>
      events.noteSampled('report-forged', {
        ...{ type: 'broadcasts-forged', actor: 'auth', network: '', subject: {}, details: { messages: 1 } },
        reason: 'a message on the broker pretended to be the report of a service',
      }),
    epochs: createEpochs({ store, keys }),
    publicKeys: createPublicKeys(store),
    passwords,
    exchange,
    log,
    revocations: createRevocations({
      store,
      log,
      tokenIdOf,
      clock,
      issuer,
      instances,
      onKeyRevoked: replenishSoon,
      onLogChanged,
    }),
    users: createUsers({ store, passwords, fingerprint }),
    clients: createClients({ store, passwords, clock, fingerprint }),
    sessions: createSessions({
      store,
      passwords,
      tokens,
      throttle,
      clock,
      loginBinding: config.loginBinding,
      failures,
      onRefresh: counts.refreshed,
      refreshKey: deriveSecret(keyEncryptionKey, 'refresh-successor'),
    }),
    accountChanges: createAccountChanges({ store, passwords, throttle, clock, failures }),
    // Counted apart: a client with a wrong key must not keep the users behind the same address from logging in.
    serviceTokens: createServiceTokens({
      store,
      passwords,
      tokens,
      throttle: createThrottle({ ...guesses, purpose: 'client' }),
      issuer,
      onRefused: failures.clientRefused,
    }),
  };
}

/** Waits for the database, then does the work until it is done, however often the database goes away meanwhile. */
async function prepare(database: Database, signal: AbortSignal, work: () => Promise<void>): Promise<void> {
  await database.ready(signal);
  for (;;) {
    try {
      return await work();
    } catch (error) {
      if (!(error instanceof ServiceError) || error.code !== 'DEPENDENCY_UNAVAILABLE') throw error;
      await sleep(PREPARE_RETRY_MS, undefined, { signal });
    }
  }
}

/** A key that does not open is, most often, a wrong key-encryption key: the operator has to act. */
function explain(error: unknown): unknown {
  if (!(error instanceof UnusableKeyError)) return error;
  const problem = `does not fit the database: ${error.message}`;
  return new ConfigurationError([{ variable: 'PORTCULLIS_KEY_ENCRYPTION_KEY', problem }]);
}
