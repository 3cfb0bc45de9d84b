/** One replica of auth: the domain code of production over the simulated database, network and clocks. */

import { parseCompactToken, parseJsonObject, readClaims } from '@portcullis/guard/internal';
import { ACCESS_TOKEN_TYPE } from '@portcullis/guard/limits';
import {
  Broadcast,
  type PullResponse,
  type SyncRequest,
  type SyncResponse,
} from '../../proto/gen/portcullis/revocation/v1/revocation.js';
import { type AccountChanges, createAccountChanges } from '../../services/auth/accounts/account-changes.js';
import type { Passwords } from '../../services/auth/accounts/passwords.js';
import {
  entryMessageOf,
  pullResponseOf,
  questionOf,
  syncResponseOf,
} from '../../services/auth/adapters/revocation-messages.js';
import { BROADCAST_TYPE, type Keys } from '../../services/auth/keys/keys.js';
import { publish } from '../../services/auth/keys/published-keys.js';
import type { KeyRow } from '../../services/auth/records/keys.js';
import type { LogBatch } from '../../services/auth/records/revocations.js';
import { createEpochs, type Epochs } from '../../services/auth/revocation/epochs.js';
import { createFences } from '../../services/auth/revocation/fences.js';
import { createInstances } from '../../services/auth/revocation/instances.js';
import { createRevocations, type Revocations } from '../../services/auth/revocation/revocations.js';
import { createLoginTurns } from '../../services/auth/sessions/login-turns.js';
import {
  createRefreshPlaces,
  REFRESHES_PER_TOKEN_DEFAULT,
} from '../../services/auth/sessions/refresh-places.js';
import { createSessions, type Sessions } from '../../services/auth/sessions/sessions.js';
import { createExchange, type Exchange } from '../../services/auth/tokens/exchange.js';
import { createTokens, type MintedToken, type VerifyToken } from '../../services/auth/tokens/tokens.js';
import type { AuthStore } from '../../services/auth/transaction.js';
import { type Connection, createLogStore, createStore, keyRow, transactionBehind } from './auth-rows.js';
import type { Broker } from './broker.js';
import type { Cluster, Node } from './database.js';
import { createFenceStore } from './fence-rows.js';
import { createInstanceStore } from './instance-rows.js';
import type { IssuedClaims } from './oracle.js';
import type { Process } from './time.js';
import { ACTING_CLIENT, ISSUER, type World } from './world.js';

/** Duration of a password comparison, in milliseconds: revocations happen meanwhile. */
const PASSWORD_MS = 40;

/** The interface of one process of auth. */
export interface AuthService {
  readonly sessions: Sessions;
  readonly exchange: Exchange;
  readonly revocations: Revocations;
  readonly epochs: Epochs;
  readonly accountChanges: AccountChanges;
  /** Sets how long leases are. */
  setLeaseMs(leaseMs: number): Promise<void>;
  /** Another configured lifetime of tokens, which this process has not written to the log. */
  configureTokenSeconds(seconds: number): void;
  /** Sets how long tokens live that are minted from now on. */
  setTokenSeconds(seconds: number): Promise<void>;
  /** A token of the service that acts for users. */
  issueServiceToken(): Promise<MintedToken>;
  sync(request: SyncRequest): Promise<SyncResponse>;
  pull(request: { service: string; instance: Buffer }): AsyncIterable<PullResponse>;
}

/** The environment of a replica. */
export interface ReplicaOptions {
  readonly world: World;
  readonly cluster: Cluster;
  readonly broker: Broker;
  readonly process: Process;
  readonly node: () => Node;
  /** An instance had entries that the log does not have. */
  readonly onLogChanged: () => void;
}

/** Starts a process of auth. */
export function startReplica({
  world,
  cluster,
  broker,
  process,
  node,
  onLogChanged,
}: ReplicaOptions): AuthService {
  const connection: Connection = { world, cluster, process, node, configured: { ...world.settings } };
  const onRevoked = (batch: LogBatch): void => broadcast(world, cluster, broker, process, batch);
  const store = createStore(connection, onRevoked);
  const log = createLogStore(connection);
  const keys = createListedKeys(world, store);
  const { clock } = process;
  const tokens = createTokens({
    issuer: ISSUER,
    keys,
    verifyToken: createVerifier(world),
  });
  const exchange = createExchange({
    store,
    tokens,
    foreignTokens: { verify: () => Promise.resolve(undefined) },
  });
  const revocations = createRevocations({
    store,
    log,
    identify: exchange.identify,
    sessionIdOf: () => Promise.resolve(undefined),
    clock,
    timers: process,
    issuer: ISSUER,
    foreignIssuers: ['https://other.example'],
    revocableClaims: new Map([['https://other.example', ['/tenant']]]),
    instances: createInstances({ store: createInstanceStore(connection), clock, timers: process }),
    fences: createFences({ store: createFenceStore(connection), clock, timers: process }),
    onKeyRevoked: () => void keys.replenish().catch(() => undefined),
    onLogChanged,
  });
  const passwords: Passwords = {
    hash: (password) => Promise.resolve(password),
    verify: (hash, password) =>
      new Promise((resolve) =>
        process.after(PASSWORD_MS * world.random.next(), () => resolve(hash === password)),
      ),
    requirePlace: () => undefined,
  };
  const throttle = {
    attempt: () =>
      Promise.resolve({
        networkKey: undefined,
        nameKey: undefined,
        isKnown: true,
        uncount: () => Promise.resolve(),
        refusal: () => Promise.resolve(undefined),
      }),
    remembers: () => false,
    nameKeyOf: () => Buffer.alloc(32),
    networkKeyOf: () => Buffer.alloc(32),
  };
  const nothing = (): void => undefined;
  const failures = { failed: nothing, limited: nothing, clientRefused: nothing };
  const sessions = createSessions({
    store,
    passwords,
    throttle,
    tokens,
    clock,
    loginBinding: 'off',
    failures,
    turns: createLoginTurns(clock),
    places: createRefreshPlaces(REFRESHES_PER_TOKEN_DEFAULT),
    refreshKey: Buffer.alloc(32, 7),
    refreshRetrySeconds: 10,
  });
  startPurging(process, revocations, world.settings.keepMarginSeconds * 200);
  return {
    sessions,
    exchange,
    revocations,
    epochs: createEpochs({ store, keys, clock }),
    accountChanges: createAccountChanges({
      store,
      passwords,
      throttle,
      clock,
      failures,
      resetKey: Buffer.alloc(32, 8),
      resetSeconds: 3600,
    }),
    setLeaseMs: (leaseMs) => log.setLeaseMs(leaseMs),
    configureTokenSeconds: (seconds) => {
      connection.configured.accessTokenSeconds = seconds;
    },
    setTokenSeconds: (seconds) => {
      connection.configured.accessTokenSeconds = seconds;
      return log.setTokenSeconds(seconds);
    },
    issueServiceToken: () =>
      store.transaction(async (tx) => {
        const client = await tx.clients.lockShared(ACTING_CLIENT);
        if (client === undefined) throw new Error('the acting client is gone');
        const clients = [[ACTING_CLIENT, client.generation]] as const;
        const { audiences, scopes } = client;
        return await tokens.mint(tx, {
          subject: ACTING_CLIENT,
          clientId: ACTING_CLIENT,
          audiences,
          scopes,
          roles: [],
          clients,
        });
      }),
    sync: async (request) => syncResponseOf(await revocations.sync(questionOf(request))),
    pull: async function* (request) {
      for await (const part of revocations.pull(request)) yield pullResponseOf(part);
    },
  };
}

function startPurging(process: Process, revocations: Revocations, everyMs: number): void {
  process.after(everyMs, () => {
    revocations.purge().catch(() => undefined);
    startPurging(process, revocations, everyMs);
  });
}

/** Publishes a batch after a short delay. A batch of a former epoch is not signed. */
function broadcast(world: World, cluster: Cluster, broker: Broker, process: Process, batch: LogBatch): void {
  if (batch.entries.length === 0) return;
  process.after(world.random.next(), () => {
    const epoch = batch.epoch.toString('hex');
    const key = [...cluster.primary.tables.all('keys').values()].find((row) => {
      const { purpose, state, epoch: ofEpoch } = row as KeyRow & { readonly epoch: Buffer };
      return purpose === 'broadcast' && state === 'signing' && ofEpoch.toString('hex') === epoch;
    }) as KeyRow | undefined;
    if (key === undefined) return;
    const payload = Broadcast.encode({
      epoch: batch.epoch,
      entries: batch.entries.map(entryMessageOf),
    }).finish();
    broker.publish(process, world.signatures.sign(key.kid, BROADCAST_TYPE, payload));
  });
}

/** The keys of the issuer; signing appends to a list, everything else is as in production. */
function createListedKeys(world: World, store: AuthStore): Keys {
  const make = (purpose: KeyRow['purpose'], state: KeyRow['state']): KeyRow => {
    return keyRow(`key-${purpose}-${world.random.integer(1, 1e9)}`, purpose, state);
  };
  const createAll = (): KeyRow[] =>
    (['token', 'broadcast'] as const).flatMap((purpose) => [make(purpose, 'signing'), make(purpose, 'next')]);
  return {
    open: () => Promise.resolve(),
    createAll: () => Promise.resolve(createAll()),
    replenish: () =>
      store.transaction(async (tx) => {
        await tx.keys.lockCreation();
        const live = await tx.keys.live();
        for (const key of createAll()) {
          const has = live.some(({ purpose, state }) => purpose === key.purpose && state === key.state);
          if (!has) await tx.keys.insert(key);
        }
      }),
    lockTokenSigner: async (tx) => {
      const row = (await tx.keys.lockSigning('token')) ?? (await tx.keys.lockSigning('token'));
      if (row === undefined) throw new Error('there is no signing key yet');
      return async (claims) => {
        const said = claimsToSign(world, claims);
        const text = world.signatures.sign(row.kid, ACCESS_TOKEN_TYPE, Buffer.from(JSON.stringify(said)));
        transactionBehind(tx).onDurable(() =>
          world.oracle.tokenIssued(claims as IssuedClaims, text, row.kid),
        );
        return text;
      };
    },
    signReceipt: () => {
      throw new TypeError('nothing exports receipts here');
    },
    broadcastSigner: () => {
      throw new TypeError('broadcasts are signed where they are sent');
    },
    published: async (tx) => publish(await tx.keys.live()),
  };
}

/** Without generations a token has its issue time, and nothing else is compared. */
function claimsToSign(world: World, claims: object): object {
  if (world.without !== 'generation') return claims;
  const { iat, gen, clients } = claims as { iat: number; gen?: number; clients: [string, number][] };
  return {
    ...claims,
    ...(gen !== undefined && { gen: iat }),
    clients: clients.map(([clientId]) => [clientId, iat]),
  };
}

function createVerifier(world: World): VerifyToken {
  return async (text, keySet, { audience, nowSeconds }) => {
    const token = parseCompactToken(text, ACCESS_TOKEN_TYPE);
    if (token === undefined || !keySet.keys.some(({ kid }) => kid === token.keyId)) return undefined;
    if (!world.signatures.isSigned(token)) return undefined;
    const payload = parseJsonObject(token.payload);
    const claims = payload && readClaims(payload, token.keyId, { issuer: ISSUER, audience, nowSeconds });
    return claims === undefined || 'fault' in claims ? undefined : claims;
  };
}
