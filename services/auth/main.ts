/** Auth as a process: the one place where its parts are put together. */

import { setTimeout as sleep } from 'node:timers/promises';
import { ServerCredentials } from '@grpc/grpc-js';
import { createGuard, type Guard, ServiceError, systemClock } from '../../interceptors/index.js';
import { AuthServiceService, protoMetadata as authMetadata } from '../../proto/gen/auth/v1/auth_service.js';
import { UserServiceService, protoMetadata as userMetadata } from '../../proto/gen/auth/v1/user_service.js';
import {
  RevocationServiceService,
  protoMetadata as revocationMetadata,
} from '../../proto/gen/portcullis/revocation/v1/revocation.js';
import { type Database, openDatabase } from '../common/database.js';
import { ConfigurationError } from '../common/env.js';
import { hostMethods, startHost } from '../common/host.js';
import { createLog } from '../common/log.js';
import { exitWith, runMain, runUntilSignal } from '../common/process.js';
import { type Broadcaster, createBroadcaster } from './adapters/broadcaster.js';
import { createRevocationSource } from './adapters/revocation-source.js';
import { createTokenVerifier } from './adapters/token-verifier.js';
import { createWellKnownRoutes } from './adapters/well-known.js';
import { applyBootstrap } from './bootstrap.js';
import { type Config, parseConfig } from './config.js';
import { createExchange } from './exchange.js';
import { createAuthHandlers, createUserHandlers } from './handlers.js';
import { startHousekeeping } from './housekeeping.js';
import { readPublishedKeys } from './key-store.js';
import { createKeys, createPublicKeys, UnusableKeyError } from './keys.js';
import { createPasswords } from './passwords.js';
import { createRevocationHandlers } from './revocation-handlers.js';
import type { LogBatch } from './revocation-log.js';
import { createRevocationStore } from './revocation-store.js';
import { createRevocations } from './revocations.js';
import { OWN_AUDIENCE } from './roles.js';
import { createFingerprint, deriveSecret } from './secrets.js';
import { createServiceTokens } from './service-tokens.js';
import { createSessions } from './sessions.js';
import { clean, createAuthStore } from './store.js';
import { createThrottle } from './throttle.js';
import { createTokens } from './tokens.js';
import { createUsers } from './users.js';

const SERVICE_NAMES = [
  'auth.v1.AuthService',
  'auth.v1.UserService',
  'portcullis.revocation.v1.RevocationService',
];

/** The pause between two attempts to prepare the database, in milliseconds. */
const PREPARE_RETRY_MS = 250;

await runMain(() => main(parseConfig(process.env)));

async function main(config: Config): Promise<void> {
  const { issuer, natsUrl, keyEncryptionKey } = config;
  const log = createLog({ service: OWN_AUDIENCE, level: config.logLevel });
  const migrations = new URL('./migrations/', import.meta.url);
  const database = openDatabase({ url: config.databaseUrl, migrations, log });

  let broadcaster: Broadcaster | undefined;
  let guard: Guard | undefined;
  const onRevoked = (batch: LogBatch): void => {
    broadcaster?.publish(batch);
    // Without a broker even this process would not learn of it before the next regular sync.
    if (broadcaster?.state().connected !== true) guard?.askNow();
  };
  const store = createAuthStore({ database, onRevoked });
  const keys = createKeys({ store, keyEncryptionKey, algorithm: config.signingAlgorithm });
  const publicKeys = createPublicKeys(store);
  const verifyToken = createTokenVerifier(issuer);
  const tokens = createTokens({ issuer, accessTokenSeconds: config.accessTokenSeconds, keys, verifyToken });
  const passwords = createPasswords();
  const refreshKey = deriveSecret(keyEncryptionKey, 'refresh-successor');
  const fingerprint = createFingerprint(deriveSecret(keyEncryptionKey, 'request-fingerprint'));
  const accounts = { store, tokens, passwords };
  const sessions = createSessions({
    ...accounts,
    throttle: createThrottle(),
    clock: systemClock,
    refreshKey,
  });
  // Counted apart: a client with a wrong key must not keep the users behind the same address from logging in.
  const serviceTokens = createServiceTokens({ ...accounts, throttle: createThrottle(), issuer });
  const exchange = createExchange({ store, tokens });
  const users = createUsers({ store, passwords, fingerprint });

  const revocationStore = createRevocationStore({ database, publishedKeys: readPublishedKeys });
  const revocations = createRevocations({
    store,
    log: revocationStore,
    tokenIdOf: exchange.tokenIdOf,
    clock: systemClock,
    onLogChanged: ({ service, applied, epoch }) =>
      log.error(
        { event: 'log_changed', instanceOf: service, applied, epoch: epoch.toString('hex') },
        'an instance has seen revocations that the database does not have: it was restored or lost transactions',
      ),
  });
  const source = createRevocationSource(revocations);
  const ownGuard = await createGuard({
    issuer,
    audience: OWN_AUDIENCE,
    auth: { source },
    nats: natsUrl === undefined ? undefined : { url: natsUrl },
    publicMethods: hostMethods(config),
    log,
  });
  guard = ownGuard;

  let unprepared = 'keys and first accounts are not prepared yet';
  const host = await startHost({
    service: OWN_AUDIENCE,
    listen: config.listen,
    opsListen: config.opsListen,
    log,
    reflection: config.reflection,
    drainMs: config.drainMs,
    interceptors: [ownGuard.interceptor],
    credentials: ServerCredentials.createInsecure(),
    addServices: (server) => {
      const authHandlers = createAuthHandlers({ sessions, serviceTokens, exchange, publicKeys });
      const revocationHandlers = createRevocationHandlers({ revocations, source });
      ownGuard.addService(server, AuthServiceService, authMetadata, authHandlers);
      ownGuard.addService(server, UserServiceService, userMetadata, createUserHandlers({ users }));
      ownGuard.addService(server, RevocationServiceService, revocationMetadata, revocationHandlers);
    },
    serviceNames: SERVICE_NAMES,
    readiness: {
      database: database.missing,
      keys: () => unprepared,
      revocations: () => ownGuard.state().missing,
    },
    routes: createWellKnownRoutes({ issuer, publicKeys }),
  });
  ownGuard.onStateChange(host.readinessChanged);
  database.onStateChange(host.readinessChanged);
  if (natsUrl === undefined) log.warn('without a broker revocations travel by sync alone');
  else broadcaster = createBroadcaster({ url: natsUrl, signer: keys.broadcastSigner(), log });

  const chores = { revocations: () => revocations.purge(), accounts: () => clean(database) };
  const housekeeping = startHousekeeping({ chores, log });
  const stopping = new AbortController();
  runUntilSignal({
    log,
    drainMs: config.drainMs,
    stop: async () => {
      stopping.abort();
      await host.stop();
      await housekeeping.stop();
      await broadcaster?.close();
      await ownGuard.close();
      await database.close();
    },
  });

  try {
    await prepare(database, stopping.signal, async () => {
      await keys.open();
      await revocationStore.setLeaseMs(config.leaseMs);
      const created = await applyBootstrap(config.bootstrap, { store, passwords });
      if (created.users + created.clients > 0) log.info(created, 'created what the bootstrap file names');
    });
    unprepared = '';
    host.readinessChanged();
    ownGuard.askNow();
  } catch (error) {
    if (!stopping.signal.aborted) exitWith(explain(error));
  }
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
