/** Replicas of auth behind real sockets on one database, and services that follow them. */

import { randomUUID } from 'node:crypto';
import { credentials, Server, ServerCredentials } from '@grpc/grpc-js';
import { createGuard, type Guard, ServiceError } from '@portcullis/guard';
import {
  AuthServiceClient,
  AuthServiceService,
  protoMetadata as authMetadata,
} from '../../../proto/gen/auth/v1/auth_service.js';
import {
  ClientServiceClient,
  ClientServiceService,
  protoMetadata as clientMetadata,
} from '../../../proto/gen/auth/v1/client_service.js';
import {
  KeyServiceClient,
  KeyServiceService,
  protoMetadata as keyMetadata,
} from '../../../proto/gen/auth/v1/key_service.js';
import {
  RevocationServiceClient,
  RevocationServiceService,
  type RevokeRequest,
  type RevokeResponse,
  RevokeWait,
  protoMetadata as revocationMetadata,
} from '../../../proto/gen/portcullis/revocation/v1/revocation.js';
import { ask } from '../../../scripts/system/calls.js';
import { type Broadcaster, createBroadcaster } from '../../../services/auth/adapters/broadcaster.js';
import { createRevocationSource } from '../../../services/auth/adapters/revocation-source.js';
import { createClientHandlers } from '../../../services/auth/clients/handlers.js';
import { createKeyHandlers } from '../../../services/auth/keys/handlers.js';
import type { LogBatch } from '../../../services/auth/records/revocations.js';
import { createRevocationHandlers } from '../../../services/auth/revocation/handlers.js';
import { createAuthService } from '../../../services/auth/services.js';
import type { PrivateNats } from '../../support/nats.js';
import { type FreshDatabase, freshDatabase } from '../../support/postgres.js';
import { until } from '../../support/waiting.js';
import {
  type AuthInstance,
  addClient,
  addUser,
  ISSUER,
  logIn,
  newKeyEncryptionKey,
  openAuth,
  type TestClient,
  type TestUser,
} from './instance.js';
import { quietLog } from './revocation/revocation-support.js';

/** A lease so long that instances sync only every twelve seconds by themselves. */
export const LONG_LEASE_MS = 60_000;

/** A replica of auth that can be called. */
export interface Replica extends AuthInstance {
  readonly address: string;
  readonly guard: Guard;
  readonly auth: AuthServiceClient;
  readonly revocationService: RevocationServiceClient;
  readonly keyService: KeyServiceClient;
  readonly clientService: ClientServiceClient;
  /** Number of LOG_CHANGED errors that instances received. */
  alarms(): number;
}

/** Two replicas of auth, and the guards of services that follow them. */
export interface Cluster {
  readonly fresh: FreshDatabase;
  readonly replicas: readonly [Replica, Replica];
  /** Guards of services, by name: the first follows the first replica, the second the second. */
  readonly followers: { readonly inventory: Guard; readonly payment: Guard };
  readonly client: TestClient;
  /** A user who may revoke, list the instances and open epochs. */
  readonly admin: TestUser;
  guards(): readonly Guard[];
  /** Adds a service that follows the replica. */
  follow(service: string, replica: Replica): Promise<Guard>;
  /** A token of a new session of the user, with audiences of every service. */
  token(user: TestUser, replica?: Replica): Promise<string>;
  revoke(
    target: RevokeRequest['target'],
    wait?: RevokeWait,
    options?: { replica?: Replica; token?: string; dryRun?: boolean },
  ): Promise<RevokeResponse>;
  close(): Promise<void>;
}

/** Starts two replicas and two services. */
export async function startCluster(options: { leaseMs: number; nats?: PrivateNats }): Promise<Cluster> {
  const { leaseMs, nats } = options;
  const fresh = await freshDatabase();
  const keyEncryptionKey = newKeyEncryptionKey();
  const first = await startReplica(fresh.url, { keyEncryptionKey, nats });
  // Written directly: after `setLeaseMs`, leases of the default length would count until they expire.
  await first.database.query('UPDATE log_state SET lease_ms = $1', [leaseMs]);
  const second = await startReplica(fresh.url, { keyEncryptionKey, nats });
  const client = await addClient(first, { clientId: 'inventory', scopes: ['auth.sync'] });
  const admin = await addUser(first, ['admin', 'security']);
  const guards: Guard[] = [first.guard, second.guard];

  const clients = new Map([[client.clientId, client]]);
  const clientOf = async (clientId: string): Promise<TestClient> => {
    const known = clients.get(clientId) ?? (await addClient(first, { clientId, scopes: ['auth.sync'] }));
    clients.set(clientId, known);
    return known;
  };
  const follow = async (service: string, { address }: Replica): Promise<Guard> => {
    const { clientId, privateKey } = await clientOf(service);
    const guard = await createGuard({
      log: 'silent',
      issuer: ISSUER,
      audience: service,
      auth: {
        address,
        credentials: credentials.createInsecure(),
        clientId,
        clientKey: privateKey,
      },
      nats: nats && { url: nats.url('inventory') },
    });
    guards.push(guard);
    await guard.ready;
    return guard;
  };
  await Promise.all([first.guard.ready, second.guard.ready]);
  const inventory = await follow('inventory', first);
  const payment = await follow('payment', second);
  const token = async (user: TestUser, replica: Replica = first): Promise<string> =>
    (await logIn(replica, user)).access.token;

  return {
    fresh,
    replicas: [first, second],
    followers: { inventory, payment },
    client,
    admin,
    guards: () => guards,
    follow,
    token,
    revoke: async (
      target,
      wait = RevokeWait.REVOKE_WAIT_NONE,
      { replica = first, token: given, dryRun = false } = {},
    ) => {
      const service = replica.revocationService;
      const request = { target, reason: 'a test', wait, targets: [], dryRun, fences: [] };
      return await ask(service.revoke.bind(service), request, {
        token: given ?? (await token(admin, replica)),
        timeoutMs: 20_000,
      });
    },
    close: async () => {
      for (const guard of guards) await guard.close();
      for (const replica of [first, second]) await replica.close();
      await fresh.drop();
    },
  };
}

/** Starts a replica of auth as its process does. */
export async function startReplica(
  url: string,
  options: { keyEncryptionKey: Buffer; nats?: PrivateNats | undefined },
): Promise<Replica> {
  let broadcaster: Broadcaster | undefined;
  let follower = (_: LogBatch): void => {};
  let alarms = 0;
  const auth = await openAuth(url, {
    keyEncryptionKey: options.keyEncryptionKey,
    onRevoked: (batch) => {
      broadcaster?.publish(batch);
      follower(batch);
    },
    onLogChanged: () => {
      alarms += 1;
    },
  });
  const source = createRevocationSource(auth.revocations, (onWritten) => {
    follower = onWritten;
  });
  const ownGuard = await createGuard({
    log: 'silent',
    issuer: ISSUER,
    audience: 'auth',
    auth: { source },
    nats: options.nats && { url: options.nats.url('auth') },
  });
  if (options.nats !== undefined) {
    const signer = auth.keys.broadcastSigner();
    broadcaster = createBroadcaster({ url: options.nats.url('auth'), signer, log: quietLog });
  }
  const server = new Server({ interceptors: [ownGuard.interceptor] });
  ownGuard.addService(server, AuthServiceService, authMetadata, createAuthService(auth));
  ownGuard.addService(server, KeyServiceService, keyMetadata, createKeyHandlers(auth));
  ownGuard.addService(server, ClientServiceService, clientMetadata, createClientHandlers(auth));
  const handlers = createRevocationHandlers({ ...auth, source });
  ownGuard.addService(server, RevocationServiceService, revocationMetadata, handlers);
  const port = await new Promise<number>((resolve, reject) =>
    server.bindAsync('127.0.0.1:0', ServerCredentials.createInsecure(), (error, bound) =>
      error === null ? resolve(bound) : reject(error),
    ),
  );
  const address = `127.0.0.1:${port}`;
  const clients = {
    auth: new AuthServiceClient(address, credentials.createInsecure()),
    revocationService: new RevocationServiceClient(address, credentials.createInsecure()),
    keyService: new KeyServiceClient(address, credentials.createInsecure()),
    clientService: new ClientServiceClient(address, credentials.createInsecure()),
  };
  const started = broadcaster;
  if (started !== undefined) await until(() => started.state().connected);
  return {
    ...auth,
    ...clients,
    address,
    guard: ownGuard,
    alarms: () => alarms,
    close: async () => {
      for (const client of Object.values(clients)) client.close();
      server.forceShutdown();
      await ownGuard.close();
      await broadcaster?.close();
      await auth.close();
    },
  };
}

/** A guard's decision on a token: the reason of the rejection, or OK. */
export async function verdictOf(guard: Guard, token: string): Promise<string> {
  try {
    await guard.authenticateToken(token);
    return 'OK';
  } catch (error) {
    if (error instanceof ServiceError) return error.code;
    throw error;
  }
}

export function newRequestId(): string {
  return randomUUID();
}
