/** Auth on a real database without its network side, with helpers for its tests. */

import { generateKeyPairSync, type KeyObject, randomBytes, randomUUID } from 'node:crypto';
import { type Clock, systemClock } from '@portcullis/guard/clock';
import { decodeJwt, type JWTPayload, SignJWT } from 'jose';
import {
  type AccountChanges,
  createAccountChanges,
} from '../../../services/auth/accounts/account-changes.js';
import { createPasswords, type Passwords } from '../../../services/auth/accounts/passwords.js';
import { createUsers, type Users } from '../../../services/auth/accounts/users.js';
import { methodsOf } from '../../../services/auth/adapters/descriptor-set.js';
import {
  createForeignTokens,
  type NamingIssuer,
  revocableClaimsOf,
} from '../../../services/auth/adapters/foreign-tokens.js';
import { createTokenVerifier } from '../../../services/auth/adapters/token-verifier.js';
import { type Clients, createClients } from '../../../services/auth/clients/clients.js';
import { createFingerprint, deriveSecret } from '../../../services/auth/keys/derived-secrets.js';
import { createKeyLife, type KeyLife, type Rotation } from '../../../services/auth/keys/key-life.js';
import { createKeys, type Keys } from '../../../services/auth/keys/keys.js';
import type { SigningAlgorithm } from '../../../services/auth/keys/new-keys.js';
import { createPublicKeys, type PublicKeys } from '../../../services/auth/keys/published-keys.js';
import { readPublishedKeys } from '../../../services/auth/keys/store.js';
import { createNarrowings, type Narrowings } from '../../../services/auth/policy/narrowings.js';
import {
  createPolicyAdministration,
  type PolicyAdministration,
} from '../../../services/auth/policy/policy-administration.js';
import type { LogBatch } from '../../../services/auth/records/revocations.js';
import type { User } from '../../../services/auth/records/users.js';
import { createEpochs, type Epochs } from '../../../services/auth/revocation/epochs.js';
import { createFenceStore } from '../../../services/auth/revocation/fence-store.js';
import { createFences } from '../../../services/auth/revocation/fences.js';
import { createInstanceStore } from '../../../services/auth/revocation/instance-store.js';
import { createInstances, type Instances } from '../../../services/auth/revocation/instances.js';
import type { RevocationRecords } from '../../../services/auth/revocation/listed-revocations.js';
import { createRevocationRecords } from '../../../services/auth/revocation/listed-revocations-store.js';
import { createRevocations, type Revocations } from '../../../services/auth/revocation/revocations.js';
import { createRevocationStore } from '../../../services/auth/revocation/store.js';
import type { SecurityStore } from '../../../services/auth/security/event-access.js';
import { createSecurityLog, type SecurityLog } from '../../../services/auth/security/event-log.js';
import {
  createFairQueue,
  type FairQueue,
  type QueueLimits,
} from '../../../services/auth/security/fair-queue.js';
import { createSecurityStore } from '../../../services/auth/security/store.js';
import {
  createThrottle,
  type Throttle,
  type ThrottleLimits,
} from '../../../services/auth/security/throttle.js';
import { createAttemptCounters } from '../../../services/auth/security/throttle-store.js';
import { findSessionOf } from '../../../services/auth/sessions/end-session.js';
import type { LoginBinding, LoginRequest } from '../../../services/auth/sessions/login.js';
import { createLoginFailures } from '../../../services/auth/sessions/login-failures.js';
import { createLoginTurns } from '../../../services/auth/sessions/login-turns.js';
import { createRefreshPlaces } from '../../../services/auth/sessions/refresh-places.js';
import { createSessions, type Sessions } from '../../../services/auth/sessions/sessions.js';
import { createAuthStore } from '../../../services/auth/store.js';
import { createClientTurns } from '../../../services/auth/tokens/client-turns.js';
import { createExchange, type Exchange } from '../../../services/auth/tokens/exchange.js';
import { createServiceTokens, type ServiceTokens } from '../../../services/auth/tokens/service-tokens.js';
import { createTokens, type Tokens } from '../../../services/auth/tokens/tokens.js';
import type { AuthStore } from '../../../services/auth/transaction.js';
import { type Database, openDatabase } from '../../../services/common/database/database.js';
import { createLog } from '../../../services/common/host/log.js';
import { installDemoPolicy } from './demo-policy.js';
import { migratedDatabase } from './migrated-database.js';

export const ISSUER = 'https://auth.example';

/** An issuer that revocations may name without further configuration. */
export const OTHER_ISSUER = 'https://other.example';

/** One replica of auth. */
export interface AuthInstance {
  readonly database: Database;
  readonly store: AuthStore;
  readonly keys: Keys;
  readonly keyLife: KeyLife;
  readonly rotations: Rotation[];
  readonly publicKeys: PublicKeys;
  readonly passwords: Passwords;
  /** The queue for hashes of passwords. */
  readonly passwordQueue: FairQueue;
  readonly tokens: Tokens;
  readonly users: Users;
  readonly clients: Clients;
  readonly policy: PolicyAdministration;
  readonly narrowings: Narrowings;
  readonly sessions: Sessions;
  readonly accountChanges: AccountChanges;
  /** The throttle of the logins. */
  readonly throttle: Throttle;
  readonly serviceTokens: ServiceTokens;
  readonly exchange: Exchange;
  readonly revocations: Revocations;
  readonly revocationRecords: RevocationRecords;
  readonly instances: Instances;
  readonly events: SecurityLog;
  readonly securityStore: SecurityStore;
  readonly epochs: Epochs;
  /** The batches passed on for broadcast. */
  readonly broadcast: LogBatch[];
  close(): Promise<void>;
}

export function newKeyEncryptionKey(): Buffer {
  return randomBytes(32);
}

/** Deviations from a replica's defaults. */
export interface AuthOptions {
  readonly keyEncryptionKey?: Buffer;
  readonly accessTokenSeconds?: number;
  readonly algorithm?: SigningAlgorithm;
  readonly clock?: Clock;
  readonly openKeys?: boolean;
  readonly limits?: Partial<ThrottleLimits>;
  readonly loginBinding?: LoginBinding;
  readonly refreshRetrySeconds?: number;
  readonly refreshesPerToken?: number;
  readonly queues?: Partial<QueueLimits>;
  readonly trustedIssuers?: readonly NamingIssuer[];
  readonly onRevoked?: (batch: LogBatch) => void;
  readonly onLogChanged?: () => void;
}

/** Opens a replica, and makes its keys unless `openKeys` is false. */
export async function openAuth(url: string, options: AuthOptions = {}): Promise<AuthInstance> {
  const { keyEncryptionKey = newKeyEncryptionKey(), accessTokenSeconds = 300, clock = systemClock } = options;
  const log = createLog({ service: 'auth', level: 'silent' });
  const migrations = new URL('../../../services/auth/migrations/', import.meta.url);
  const database = openDatabase({ url, migrations, log });
  await database.ready(AbortSignal.timeout(45_000));
  await installDemoPolicy(database);
  const broadcast: LogBatch[] = [];
  const onRevoked = (batch: LogBatch): void => {
    broadcast.push(batch);
    options.onRevoked?.(batch);
  };
  const securityStore = createSecurityStore(database);
  const events = createSecurityLog({ store: securityStore, clock, log });
  const store = createAuthStore({ database, onRevoked, events: events.observer });
  const failures = createLoginFailures({
    events,
    key: deriveSecret(keyEncryptionKey, 'event-names'),
    log,
    clock,
  });
  const keys = createKeys({ store, keyEncryptionKey, algorithm: options.algorithm ?? 'EdDSA' });
  const rotations: Rotation[] = [];
  if (options.openKeys !== false) await keys.open();
  const revocationLog = createRevocationStore({ database, publishedKeys: readPublishedKeys });
  await revocationLog.setTokenSeconds(accessTokenSeconds);
  const tokens = createTokens({
    issuer: ISSUER,
    keys,
    verifyToken: createTokenVerifier(ISSUER),
  });
  const queueLimits = { atOnceMax: 2, waitingMax: 200, waitMaxMs: 60_000 };
  const queue = (name: string) =>
    createFairQueue({ name, limits: { ...queueLimits, ...options.queues }, clock });
  const passwordQueue = queue('passwords');
  const passwords = createPasswords(passwordQueue);
  const refreshKey = deriveSecret(keyEncryptionKey, 'refresh-successor');
  const fingerprint = createFingerprint(deriveSecret(keyEncryptionKey, 'request-fingerprint'));
  const accounts = { store, tokens, passwords };
  const guesses = {
    counters: createAttemptCounters(() => database),
    clock,
    // High limits, because all tests share one peer; tests of the limits set their own.
    limits: { failuresPerName: 1000, failuresPerPeer: 100_000, windowSeconds: 300, ...options.limits },
    key: deriveSecret(keyEncryptionKey, 'attempt-counters'),
  };
  const throttle = createThrottle({ ...guesses, purpose: 'login' });
  const foreignTokens = createForeignTokens({
    issuers: options.trustedIssuers ?? [],
    ownIssuer: ISSUER,
    plaintext: 'loopback',
    log,
  });
  const exchange = createExchange({ store, tokens, foreignTokens });
  const narrowings = createNarrowings({ store, clock });
  const instances = createInstances({ store: createInstanceStore(database), clock });
  return {
    database,
    store,
    keys,
    keyLife: createKeyLife({
      store,
      keys,
      rotationDays: 30,
      onRotated: (rotation) => rotations.push(rotation),
      onNextMissing: () => void keys.replenish(),
    }),
    rotations,
    publicKeys: createPublicKeys(store),
    passwords,
    passwordQueue,
    tokens,
    users: createUsers({ store, passwords, fingerprint }),
    throttle,
    clients: createClients({ store, passwords, clock, fingerprint }),
    policy: createPolicyAdministration({ store, clock, narrowings, methodsOf }),
    narrowings,
    accountChanges: createAccountChanges({
      store,
      passwords,
      throttle,
      clock,
      failures,
      resetKey: deriveSecret(keyEncryptionKey, 'password-reset'),
      resetSeconds: 3600,
    }),
    sessions: createSessions({
      ...accounts,
      throttle,
      clock,
      failures,
      turns: createLoginTurns(clock),
      loginBinding: options.loginBinding ?? 'off',
      // More than the default, for tests of what happens between them.
      places: createRefreshPlaces(options.refreshesPerToken ?? 100),
      refreshKey,
      // Longer than the default, because the machine may be busy.
      refreshRetrySeconds: options.refreshRetrySeconds ?? 300,
    }),
    serviceTokens: createServiceTokens({
      ...accounts,
      throttle: createThrottle({ ...guesses, purpose: 'client' }),
      assertions: queue('client assertions'),
      turns: createClientTurns(clock),
      issuer: ISSUER,
      onRefused: failures.clientRefused,
    }),
    exchange,
    revocations: createRevocations({
      store,
      log: revocationLog,
      identify: exchange.identify,
      sessionIdOf: async (refreshToken) => (await findSessionOf(store, refreshToken))?.sessionId,
      clock,
      issuer: ISSUER,
      foreignIssuers: [OTHER_ISSUER, ...(options.trustedIssuers ?? []).map(({ issuer }) => issuer)],
      revocableClaims: new Map([
        ...revocableClaimsOf(options.trustedIssuers ?? []),
        [OTHER_ISSUER, ['/tenant', '/groups']],
      ]),
      instances,
      fences: createFences({ store: createFenceStore(database), clock }),
      onKeyRevoked: () => void keys.replenish(),
      onLogChanged: () => options.onLogChanged?.(),
    }),
    instances,
    revocationRecords: createRevocationRecords(database),
    events,
    securityStore,
    epochs: createEpochs({ store, keys }),
    broadcast,
    close: async () => {
      await events.close();
      await instances.close();
      foreignTokens.close();
      await database.close();
    },
  };
}

/** A replica on a database of its own, which is dropped when the replica closes. */
export interface FreshAuth extends AuthInstance {
  /** The connection string of the database. */
  readonly url: string;
}

/** Opens a replica on an empty database of its own. */
export async function openFreshAuth(options: AuthOptions = {}): Promise<FreshAuth> {
  const fresh = await migratedDatabase();
  const auth = await openAuth(fresh.url, options);
  const close = async (): Promise<void> => {
    await auth.close();
    await fresh.drop();
  };
  return { ...auth, url: fresh.url, close };
}

/** A user whose password the test knows. */
export interface TestUser extends User {
  readonly password: string;
}

/** Creates a user with a unique name. */
export async function addUser(
  auth: AuthInstance,
  roles: readonly string[] = ['customer'],
): Promise<TestUser> {
  const password = `password-${randomUUID()}`;
  const username = `user-${randomUUID()}`;
  const user = await auth.users.create({ actor: 'test', username, password, roles, requestId: randomUUID() });
  return { ...user, password };
}

export function logIn(auth: AuthInstance, user: TestUser, over: Partial<LoginRequest> = {}) {
  return auth.sessions.login({ ...attemptOf(user.username, user.password), ...over });
}

export function attemptOf(username: string, password: string): LoginRequest {
  return { username, password, audiences: [], scopes: [], deviceName: 'test', peer: '192.0.2.1:4000' };
}

/** A client and its private key. */
export interface TestClient {
  readonly clientId: string;
  readonly privateKey: KeyObject;
}

/** Creates a client with a new key. */
export async function addClient(
  auth: AuthInstance,
  over: {
    scopes?: string[];
    audiences?: string[];
    exchangeAudiences?: string[];
    exchangeScopes?: string[];
    certificateBound?: boolean;
    clientId?: string;
  } = {},
): Promise<TestClient> {
  const { publicKey, privateKey } = generateKeyPairSync('ed25519');
  const {
    clientId = `client-${randomUUID()}`,
    scopes = ['auth.sync', 'auth.exchange'],
    audiences = ['auth'],
  } = over;
  const pem = publicKey.export({ type: 'spki', format: 'pem' }).toString();
  const { exchangeAudiences = ['inventory'] } = over;
  await auth.store.transaction((tx) =>
    tx.clients.insertWhenAbsent({
      clientId,
      credentials: [{ credentialId: 'first', kind: 'public-key', createTime: new Date(), pem }],
      audiences,
      scopes,
      exchangeAudiences,
      exchangeScopes: over.exchangeScopes,
      certificateBound: over.certificateBound ?? false,
    }),
  );
  return { clientId, privateKey };
}

/** The claims of a valid assertion, with the test's changes. */
export function assertionClaims(client: TestClient, over: JWTPayload = {}): JWTPayload {
  const now = Math.floor(Date.now() / 1000);
  const { clientId } = client;
  return { iss: clientId, sub: clientId, aud: ISSUER, iat: now, exp: now + 60, jti: randomUUID(), ...over };
}

export function signAssertion(
  client: TestClient,
  over: JWTPayload = {},
  header: { alg: string; typ?: string } = { alg: 'EdDSA', typ: 'JWT' },
): Promise<string> {
  return new SignJWT(assertionClaims(client, over)).setProtectedHeader(header).sign(client.privateKey);
}

/** Issues a token of the client's own. */
export async function serviceToken(auth: AuthInstance, client: TestClient): Promise<string> {
  const { token } = await issue(auth, client, await signAssertion(client));
  return token;
}

/** Requests a token with an assertion. */
export function issue(
  auth: AuthInstance,
  client: Pick<TestClient, 'clientId'>,
  assertion: string,
  over: { audiences?: string[]; scopes?: string[] } = {},
) {
  return auth.serviceTokens.issue({
    clientId: client.clientId,
    credential: { kind: 'assertion', assertion },
    audiences: [],
    scopes: [],
    peer: '192.0.2.2:4000',
    ...over,
  });
}

/** The claims of a token. */
export function claimsOf(token: string): JWTPayload & Record<string, unknown> {
  return decodeJwt(token);
}

/** The entries of the log, oldest first. */
export async function entriesOf(
  auth: AuthInstance,
): Promise<{ kind: string; key: string; reason: string; actor: string }[]> {
  const { rows } = await auth.database.query<{ kind: string; key: string; reason: string; actor: string }>(
    "SELECT kind, encode(key, 'hex') AS key, reason, actor FROM revocation_entries ORDER BY seq",
  );
  return rows;
}

/** The key of a session's or a token's entry, as {@link entriesOf} returns it. */
export function entryKeyOf(uuid: string): string {
  return uuid.replaceAll('-', '');
}
