/** The domain of auth, built in the order in which its rooms need each other. */

import { type Clock, systemClock } from '@portcullis/guard/clock';
import type { Database } from '../common/database/database.js';
import type { Closer } from '../common/host/closer.js';
import type { Log } from '../common/host/log.js';
import { createAccountChanges } from './accounts/account-changes.js';
import { createPasswords } from './accounts/passwords.js';
import { createUsers } from './accounts/users.js';
import { methodsOf } from './adapters/descriptor-set.js';
import { createForeignTokens, revocableClaimsOf } from './adapters/foreign-tokens.js';
import { createTokenVerifier } from './adapters/token-verifier.js';
import { createClients } from './clients/clients.js';
import { type Config, reviewSettingsOf } from './config.js';
import { createReceipts } from './evidence/receipts.js';
import { createReceiptStore } from './evidence/store.js';
import { createFingerprint } from './keys/derived-secrets.js';
import { createKeyLife, type Rotation } from './keys/key-life.js';
import { createKeys } from './keys/keys.js';
import { createPublicKeys } from './keys/published-keys.js';
import { createReEncryption } from './keys/re-encryption.js';
import { readPublishedKeys } from './keys/store.js';
import { createStoredSecrets } from './keys/stored-secrets.js';
import { type AuthCounts, createAuthCounts, type QueueName } from './metrics.js';
import { createNarrowings } from './policy/narrowings.js';
import { createPolicyAdministration } from './policy/policy-administration.js';
import type { LogBatch } from './records/revocations.js';
import type { AnomalyDetails } from './records/security-events.js';
import { createEpochs } from './revocation/epochs.js';
import { createFenceStore } from './revocation/fence-store.js';
import { createFences } from './revocation/fences.js';
import type { InstanceLimit } from './revocation/instance-places.js';
import { createInstanceStore } from './revocation/instance-store.js';
import { createInstances } from './revocation/instances.js';
import { createRevocationRecords } from './revocation/listed-revocations-store.js';
import type { SyncPosition } from './revocation/log.js';
import { createRevocationGroups } from './revocation/revocation-groups.js';
import { createRevocations } from './revocation/revocations.js';
import { createRevocationStore } from './revocation/store.js';
import type { Finding } from './security/anomaly-rules.js';
import { createAnomalyWatch } from './security/anomaly-watch.js';
import { createSecurityLog } from './security/event-log.js';
import { createFairQueue, type FairQueue, type QueueCaller, type QueueLimit } from './security/fair-queue.js';
import { createSecurityReview } from './security/review.js';
import { createReviewFacts } from './security/review-facts.js';
import { createReviewStore } from './security/review-store.js';
import { createSampledWarning } from './security/sampled-warning.js';
import { createSecurityStore } from './security/store.js';
import { createThrottle } from './security/throttle.js';
import { createAttemptCounters } from './security/throttle-store.js';
import { findSessionOf } from './sessions/end-session.js';
import { createLoginFailures } from './sessions/login-failures.js';
import { createLoginTurns } from './sessions/login-turns.js';
import { createRefreshPlaces } from './sessions/refresh-places.js';
import { createSessions } from './sessions/sessions.js';
import { createAuthStore } from './store.js';
import { createClientTurns } from './tokens/client-turns.js';
import { createExchange } from './tokens/exchange.js';
import { createServiceTokens } from './tokens/service-tokens.js';
import { createTokens } from './tokens/tokens.js';

interface PartsResources {
  readonly database: Database;
  readonly log: Log;
  readonly closer: Closer;
  /** Called after the commit with the entries that a transaction wrote to the revocation log. */
  readonly onRevoked: (batch: LogBatch) => void;
}

/** The domain of auth. */
export type Parts = ReturnType<typeof createParts>;

/** Builds the domain; what it opens is registered with the closer. */
export function createParts(config: Config, resources: PartsResources) {
  const base = createBase(config, resources);
  const keys = createKeyParts(config, base);
  const tokens = createTokenParts(config, base, keys);
  const revocation = createRevocationParts(config, base, keys, tokens);
  const accounts = createAccountParts(config, base, tokens);
  const security = createSecurityParts(config, base, revocation);
  const policy = createPolicyParts(base);
  return { ...base, ...keys, ...tokens, ...revocation, ...accounts, ...security, ...policy };
}

type Base = ReturnType<typeof createBase>;

/**
 * What all rooms use: the stores (`promiseStore` for what keeps the promise), the security events, the passwords and the
 * counts.
 */
function createBase(config: Config, resources: PartsResources) {
  const { keyEncryptionKeys, eventDays } = config;
  const { database, log, closer, onRevoked } = resources;
  const clock = systemClock;
  const counts = createAuthCounts();
  const queues = createQueues(config, { clock, log, counts });
  const securityStore = createSecurityStore(database, eventDays);
  const events = createSecurityLog({ store: securityStore, clock, log });
  closer.add('security events', events.close);
  const store = createAuthStore({ database, onRevoked, events: events.observer, eventDays });
  const promiseStore = createAuthStore({
    database,
    importance: 'promise',
    onRevoked,
    events: events.observer,
    eventDays,
  });
  const secrets = createStoredSecrets({ store: promiseStore, keyEncryptionKeys });
  return {
    database,
    log,
    closer,
    clock,
    secrets,
    securityStore,
    events,
    store,
    promiseStore,
    counts,
    queues,
    passwords: createPasswords(queues.passwords),
    failures: createLoginFailures({ events, key: secrets.of('event-names'), log, clock }),
    fingerprint: createFingerprint(secrets.of('request-fingerprint')),
  };
}

/** The queues for work that costs much; each refusal is counted, and one a second is logged. */
function createQueues(
  { passwordQueue, assertionQueue }: Config,
  { clock, log, counts }: Pick<PartsResources, 'log'> & { clock: Clock; counts: AuthCounts },
): Record<QueueName, FairQueue> {
  const warn = createSampledWarning(log, clock);
  const reporting =
    (queue: QueueName) =>
    ({ importance }: QueueCaller, limit: QueueLimit): void => {
      counts.queueRefused(queue, importance, limit);
      warn({ event: 'queue_refused', queue, importance, limit }, 'refused a caller: too much work waits');
    };
  return {
    passwords: createFairQueue({
      name: 'passwords',
      limits: passwordQueue,
      clock,
      onRefused: reporting('passwords'),
    }),
    assertions: createFairQueue({
      name: 'client assertions',
      limits: assertionQueue,
      clock,
      onRefused: reporting('assertions'),
    }),
  };
}

type KeyParts = ReturnType<typeof createKeyParts>;

function createKeyParts(
  { keyEncryptionKeys, signingAlgorithm, keyRotationDays }: Config,
  { promiseStore: store, log, secrets }: Base,
) {
  const { current, previous, next } = keyEncryptionKeys;
  const keys = createKeys({
    store,
    keyEncryptionKey: current,
    otherKeyEncryptionKeys: [previous, next].filter((key) => key !== undefined),
    canSign: secrets.isOpen,
    algorithm: signingAlgorithm,
  });
  const replenishKeys = (): void =>
    void keys
      .replenish()
      .catch((error: unknown) => log.warn({ err: error }, 'could not make the next signing key yet'));
  return {
    keys,
    replenishKeys,
    keyLife: createKeyLife({
      store,
      keys,
      rotationDays: keyRotationDays,
      onRotated: (rotation) => logRotation(log, rotation),
      onNextMissing: replenishKeys,
    }),
    publicKeys: createPublicKeys(store),
    reEncryption: createReEncryption({ store, keyEncryptionKeys }),
    epochs: createEpochs({ store, keys }),
  };
}

function logRotation(log: Log, { signingKey, formerKey, revocation }: Rotation): void {
  log.warn(
    {
      event: 'key_rotated',
      purpose: signingKey.purpose,
      kid: signingKey.kid,
      formerKid: formerKey.kid,
      emergency: revocation !== undefined,
    },
    'rotated a signing key',
  );
}

type TokenParts = ReturnType<typeof createTokenParts>;

function createTokenParts(config: Config, { store, promiseStore, log, closer }: Base, { keys }: KeyParts) {
  const { issuer } = config;
  const foreignTokens = createForeignTokens({
    issuers: config.trustedIssuers,
    ownIssuer: issuer,
    plaintext: config.tls.plaintext,
    log,
  });
  closer.add('foreign tokens', foreignTokens.close);
  const tokens = createTokens({ issuer, keys, verifyToken: createTokenVerifier(issuer) });
  return {
    tokens,
    exchange: createExchange({ store, tokens, foreignTokens }),
    // What revokes a token by its text must not wait behind exchanges.
    identify: createExchange({ store: promiseStore, tokens, foreignTokens }).identify,
  };
}

type RevocationParts = ReturnType<typeof createRevocationParts>;

function createRevocationParts(
  { issuer, trustedIssuers, instancesPerClient, eventDays }: Config,
  base: Base,
  { keys, replenishKeys }: KeyParts,
  { identify }: TokenParts,
) {
  const { database, promiseStore, clock, closer } = base;
  const lane = database.lane('promise');
  const instances = createInstances({
    store: createInstanceStore(lane),
    clock,
    perClientMax: instancesPerClient,
    onRefused: createRefusalReport(base),
  });
  closer.add('instances', instances.close);
  const fences = createFences({ store: createFenceStore(lane), clock });
  const revocationLog = createRevocationStore({ database: lane, publishedKeys: readPublishedKeys });
  const groups = createRevocationGroups({
    store: promiseStore,
    clock,
    onGroup: base.counts.revocationsGrouped,
    onGroupRefused: base.counts.revocationRefused,
  });
  const revocations = createRevocations({
    store: promiseStore,
    log: revocationLog,
    identify,
    sessionIdOf: async (refreshToken) => (await findSessionOf(promiseStore, refreshToken))?.sessionId,
    clock,
    issuer,
    foreignIssuers: trustedIssuers.map((trusted) => trusted.issuer),
    revocableClaims: revocableClaimsOf(trustedIssuers),
    instances,
    fences,
    onKeyRevoked: replenishKeys,
    onLogChanged: (question) => reportLogChanged(base, question),
    groups,
  });
  return {
    instances,
    groups,
    fences,
    revocationLog,
    revocations,
    revocationRecords: createRevocationRecords(database),
    receipts: createReceipts({ store: createReceiptStore(database, eventDays), keys, issuer, clock }),
  };
}

/** Shortest time between two log lines about refused instances, in milliseconds. */
const REFUSAL_LOG_MS = 1000;

function createRefusalReport({ counts, clock, log }: Base): (limit: InstanceLimit, service: string) => void {
  let loggedAtMs = Number.NEGATIVE_INFINITY;
  return (limit, service) => {
    counts.instanceRefused(limit);
    if (clock.monotonicMs() - loggedAtMs < REFUSAL_LOG_MS) return;
    loggedAtMs = clock.monotonicMs();
    log.warn({ event: 'instance_refused', limit, instanceOf: service }, 'refused a sync: too many instances');
  };
}

function reportLogChanged({ events, log }: Base, { service, applied, epoch }: SyncPosition): void {
  events.noteSampled(`log-changed ${service}`, {
    type: 'log-changed',
    actor: 'auth',
    network: '',
    subject: { service },
    details: {},
    reason: 'an instance has seen revocations, or an epoch, that the database does not have',
  });
  log.error(
    { event: 'log_changed', instanceOf: service, applied, epoch: epoch.toString('hex') },
    'an instance has seen revocations, or an epoch, that the database does not have: it was restored or lost transactions',
  );
}

function createAccountParts(config: Config, base: Base, { tokens }: TokenParts) {
  const { issuer } = config;
  const { store, passwords, clock, failures, fingerprint, counts, queues, secrets } = base;
  const throttle = createThrottleFor('login', config, base);
  return {
    users: createUsers({ store, passwords, fingerprint }),
    clients: createClients({ store, passwords, clock, fingerprint }),
    accountChanges: createAccountChanges({
      store,
      passwords,
      throttle,
      clock,
      failures,
      resetKey: secrets.of('password-reset'),
      resetSeconds: config.passwordResetSeconds,
    }),
    sessions: createSessions({
      store,
      passwords,
      tokens,
      throttle,
      clock,
      loginBinding: config.loginBinding,
      failures,
      turns: createLoginTurns(clock),
      places: createRefreshPlaces(config.refreshesPerToken),
      onGroup: counts.revocationsGrouped,
      onGroupRefused: counts.revocationRefused,
      onRefresh: counts.refreshed,
      refreshKey: secrets.of('refresh-successor'),
      refreshRetrySeconds: config.refreshRetrySeconds,
    }),
    serviceTokens: createServiceTokens({
      store,
      passwords,
      tokens,
      // Counted apart: a client with a wrong key must not lock out the users behind the same address.
      throttle: createThrottleFor('client', config, base),
      assertions: queues.assertions,
      turns: createClientTurns(clock),
      issuer,
      onRefused: failures.clientRefused,
    }),
  };
}

function createPolicyParts({ store, promiseStore, clock, counts }: Base) {
  const narrowings = createNarrowings({ store: promiseStore, clock, onBatch: counts.policyNarrowed });
  return {
    narrowings,
    policy: createPolicyAdministration({
      store,
      clock,
      narrowings,
      methodsOf,
      onChanged: counts.policyChanged,
    }),
  };
}

function createThrottleFor(
  purpose: 'login' | 'client',
  { loginLimits }: Config,
  { database, clock, secrets }: Base,
) {
  return createThrottle({
    counters: createAttemptCounters((importance) => database.lane(importance)),
    clock,
    limits: loginLimits,
    purpose,
    key: secrets.of('attempt-counters'),
  });
}

function createSecurityParts(config: Config, base: Base, { instances }: RevocationParts) {
  const { database, store, securityStore, passwords, clock } = base;
  return {
    anomalies: createAnomalyWatch({
      store,
      events: securityStore,
      revoking: config.anomaliesRevoke,
      onFinding: (finding, action) => reportAnomaly(base, finding, action),
    }),
    review: createSecurityReview(
      createReviewFacts({
        store: createReviewStore(database),
        settings: reviewSettingsOf(config),
        instances,
        passwords,
        clock,
      }),
    ),
  };
}

function reportAnomaly(
  { counts, log }: Base,
  { subject, details }: Finding,
  action: AnomalyDetails['action'],
): void {
  counts.anomalyFound(details.rule);
  log.warn({ event: 'anomaly_detected', ...details, about: subject, action }, 'found an anomaly');
}
