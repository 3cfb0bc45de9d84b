/** RevocationService in a process, behind a guard: Sync as auth answers it at one port, and as it did before at another. */

import { randomBytes } from 'node:crypto';
import { Server, ServerCredentials } from '@grpc/grpc-js';
import { createGuard, type Guard, type RevocationSource } from '@portcullis/guard';
import { systemClock } from '@portcullis/guard/clock';
import {
  protoMetadata,
  RevocationServiceService,
} from '../../proto/gen/portcullis/revocation/v1/revocation.js';
import { SharedRevocationService } from '../../services/auth/adapters/revocation-service.js';
import { createRevocationSource } from '../../services/auth/adapters/revocation-source.js';
import { MIGRATIONS } from '../../services/auth/compose.js';
import { createKeyRows, readPublishedKeys } from '../../services/auth/keys/store.js';
import { createFenceStore } from '../../services/auth/revocation/fence-store.js';
import { createFences } from '../../services/auth/revocation/fences.js';
import { createRevocationHandlers } from '../../services/auth/revocation/handlers.js';
import { createInstanceStore } from '../../services/auth/revocation/instance-store.js';
import { createInstances, type Instances } from '../../services/auth/revocation/instances.js';
import type { RevocationStore } from '../../services/auth/revocation/log-access.js';
import { createRevocations } from '../../services/auth/revocation/revocations.js';
import { createRevocationStore } from '../../services/auth/revocation/store.js';
import { createAuthStore } from '../../services/auth/store.js';
import { type Database, openDatabase } from '../../services/common/database/database.js';
import { createLog } from '../../services/common/host/log.js';
import { createFormerSyncs } from './former-syncs.js';
import { BENCH_ISSUER, BenchIssuer } from './issuer.js';
import { executeCommands } from './worker.js';

const READY_MS = 60_000;
const INSTANCES_MAX = 10_000;
const AUDIENCE = 'auth';
const CLIENT = 'bench';
/** The keys that responses name, as in a system whose next signing key is published. */
const KEYS = [
  { purpose: 'token', state: 'signing' },
  { purpose: 'token', state: 'next' },
  { purpose: 'broadcast', state: 'signing' },
] as const;

const commands = {
  /** @returns the port of each arm, and a token of a client that may sync */
  open: async (url: string): Promise<{ ports: { shared: number; former: number }; token: string }> => {
    const issuer = await BenchIssuer.create();
    const database = openDatabase({
      url,
      migrations: MIGRATIONS,
      log: createLog({ service: 'bench', level: 'silent' }),
    });
    await database.ready(AbortSignal.timeout(READY_MS));
    await createKeys(database, issuer);
    const guard = await openGuard(issuer);
    const serve = (
      definition: typeof RevocationServiceService,
      sourceOf: (parts: Parts) => RevocationSource,
    ): Promise<number> => {
      const parts = partsOver(database);
      const server = new Server({ interceptors: [guard.interceptor] });
      const handlers = createRevocationHandlers({
        ...UNUSED,
        revocations: parts.revocations,
        instances: parts.instances,
        source: sourceOf(parts),
      });
      guard.addService(server, definition, protoMetadata, handlers);
      return listen(server);
    };
    const ports = {
      shared: await serve(SharedRevocationService, ({ revocations }) => createRevocationSource(revocations)),
      former: await serve(RevocationServiceService, (parts) => ({
        ...createRevocationSource(parts.revocations),
        ...createFormerSyncs(parts),
      })),
    };
    return { ports, token: await tokenOf(issuer) };
  },

  cpuMicroseconds: (): number => {
    const { user, system } = process.cpuUsage();
    return user + system;
  },
};

export type SyncCommands = typeof commands;

interface Parts {
  readonly revocations: ReturnType<typeof createRevocations>;
  readonly instances: Instances;
  readonly log: RevocationStore;
}

/** The parts of auth that answer a Sync, each arm with its own. */
function partsOver(database: Database): Parts {
  const lane = database.lane('promise');
  const log = createRevocationStore({ database: lane, publishedKeys: readPublishedKeys });
  const instances = createInstances({
    store: createInstanceStore(lane),
    clock: systemClock,
    perClientMax: INSTANCES_MAX,
  });
  const revocations = createRevocations({
    store: createAuthStore({ database, importance: 'promise', onRevoked: () => undefined }),
    log,
    identify: () => Promise.reject(new TypeError('the bench revokes no token here')),
    sessionIdOf: () => Promise.resolve(undefined),
    issuer: BENCH_ISSUER,
    foreignIssuers: [],
    clock: systemClock,
    instances,
    fences: createFences({ store: createFenceStore(lane), clock: systemClock }),
    onKeyRevoked: () => undefined,
    onLogChanged: () => undefined,
  });
  return { revocations, instances, log };
}

/** What only other methods than Sync use. */
const UNUSED = {
  revocationRecords: {
    list: () => Promise.reject(new TypeError('the bench lists no revocations')),
    get: () => Promise.reject(new TypeError('the bench gets no revocation')),
  },
  epochs: { open: () => Promise.reject(new TypeError('the bench opens no epoch')) },
};

async function createKeys(database: Database, issuer: BenchIssuer): Promise<void> {
  const { algorithm, jwk } = issuer.published;
  await database.transaction(async (sql) => {
    for (const { purpose, state } of KEYS) {
      await createKeyRows(sql).insert({
        kid: randomBytes(16).toString('base64url'),
        purpose,
        algorithm,
        state,
        jwk,
        sealedPrivateKey: randomBytes(64),
      });
    }
  });
}

async function openGuard(issuer: BenchIssuer): Promise<Guard> {
  const guard = await createGuard({
    log: 'silent',
    issuer: BENCH_ISSUER,
    audience: AUDIENCE,
    auth: { source: issuer.source },
    limits: {
      callsPerUser: Number.POSITIVE_INFINITY,
      streamsPerUser: Number.POSITIVE_INFINITY,
      connectionsPerAddress: Number.POSITIVE_INFINITY,
    },
  });
  await guard.ready;
  return guard;
}

function tokenOf(issuer: BenchIssuer): Promise<string> {
  return issuer.token({
    aud: [AUDIENCE],
    sub: CLIENT,
    client_id: CLIENT,
    scope: 'auth.sync',
    clients: [[CLIENT, 1]],
    roles: undefined,
    sid: undefined,
    gen: undefined,
    auth_time: undefined,
    amr: undefined,
  });
}

function listen(server: Server): Promise<number> {
  return new Promise((resolve, reject) => {
    server.bindAsync('127.0.0.1:0', ServerCredentials.createInsecure(), (error, port) =>
      error === null ? resolve(port) : reject(error),
    );
  });
}

executeCommands(commands);
