/** RevocationService in a process, without a guard: revocations in groups at one port, each by itself at another. */

import { Server, ServerCredentials } from '@grpc/grpc-js';
import { unary } from '@portcullis/guard';
import { systemClock } from '@portcullis/guard/clock';
import {
  RevocationServiceService,
  type RevokeRequest,
  type RevokeResponse,
  type SyncRequest,
  type SyncResponse,
} from '../../proto/gen/portcullis/revocation/v1/revocation.js';
import { createRevocationSource } from '../../services/auth/adapters/revocation-source.js';
import { MIGRATIONS } from '../../services/auth/compose.js';
import { createInstanceStore } from '../../services/auth/revocation/instance-store.js';
import { createInstances } from '../../services/auth/revocation/instances.js';
import {
  createRevocationGroups,
  type RevocationGroups,
} from '../../services/auth/revocation/revocation-groups.js';
import { createRevocations } from '../../services/auth/revocation/revocations.js';
import { createRevocationStore } from '../../services/auth/revocation/store.js';
import { createAuthStore } from '../../services/auth/store.js';
import { type Database, openDatabase } from '../../services/common/database/database.js';
import { createLog } from '../../services/common/host/log.js';
import { executeCommands } from './worker.js';

const READY_MS = 60_000;
const NEVER = new AbortController().signal;
const NO_KEYS = { keySet: { version: Buffer.alloc(32), keys: [] }, broadcastKeys: [] };

let database: Database | undefined;

const commands = {
  /** @returns the port of each arm */
  open: async (url: string): Promise<{ grouped: number; single: number }> => {
    const log = createLog({ service: 'bench', level: 'silent' });
    const opened = openDatabase({ url, migrations: MIGRATIONS, log });
    await opened.ready(AbortSignal.timeout(READY_MS));
    database = opened;
    const store = createAuthStore({ database: opened, importance: 'promise', onRevoked: () => undefined });
    const deps = { store, clock: systemClock };
    // A queue of its own for each revocation: transactions run at the same time, as they did without groups.
    const single: RevocationGroups = { write: (member) => createRevocationGroups(deps).write(member) };
    return {
      grouped: await serve(opened, createRevocationGroups(deps)),
      single: await serve(opened, single),
    };
  },

  /** Creates open sessions of one user. @returns their ids */
  addSessions: async (count: number): Promise<string[]> => {
    const { rows } = await openedDatabase().query<{ session_id: string }>(
      `WITH owner AS (
         INSERT INTO users (user_id, username, name_skeleton, password_hash)
         SELECT id, 'bench-' || left(id::text, 8), 'bench-' || left(id::text, 8), '' FROM gen_random_uuid() AS id
         RETURNING user_id
       )
       INSERT INTO sessions (session_id, user_id, client_id, generation, client_generation, device_name, audiences,
         scopes, amr, create_time, last_use_time, expire_time)
       SELECT gen_random_uuid(), user_id, 'direct', 1, 1, '', '{}', '{}', '{pwd}', now(), now(), now() + interval '1 day'
       FROM owner, generate_series(1, $1::integer) RETURNING session_id`,
      [count],
    );
    return rows.map(({ session_id: sessionId }) => sessionId);
  },

  cpuMicroseconds: (): number => {
    const { user, system } = process.cpuUsage();
    return user + system;
  },
};

export type RevocationCommands = typeof commands;

function openedDatabase(): Database {
  if (database === undefined) throw new TypeError('the database is not open');
  return database;
}

function serve(opened: Database, groups: RevocationGroups): Promise<number> {
  const lane = opened.lane('promise');
  const revocations = createRevocations({
    store: createAuthStore({ database: opened, importance: 'promise', onRevoked: () => undefined }),
    groups,
    log: createRevocationStore({ database: lane, publishedKeys: () => Promise.resolve(NO_KEYS) }),
    identify: () => Promise.reject(new TypeError('no token is revoked here')),
    sessionIdOf: () => Promise.resolve(undefined),
    issuer: 'https://bench.test',
    foreignIssuers: [],
    clock: systemClock,
    instances: createInstances({ store: createInstanceStore(lane), clock: systemClock }),
    onKeyRevoked: () => undefined,
    onLogChanged: () => undefined,
  });
  const source = createRevocationSource(revocations);
  const by = { reason: 'bench', actor: 'bench' };
  const server = new Server();
  server.addService(RevocationServiceService, {
    revoke: unary<RevokeRequest, RevokeResponse>(async ({ target, targets }) => {
      if (targets.length > 0) {
        const ids = targets.map(({ target: one }) => sessionOf(one));
        const receipt = await revocations.revokeMany({ ...by, targets: ids });
        const results = receipt.results.map((result) => {
          if ('error' in result) throw result.error;
          return { ...result, errorReason: '', errorMessage: '' };
        });
        return { ...receipt, targetKnown: true, instances: [], results };
      }
      const receipt = await revocations.revoke({ ...by, target: sessionOf(target) });
      return { ...receipt, instances: [], results: [] };
    }),
    sync: unary<SyncRequest, SyncResponse>((request) => source.sync(request, NEVER)),
  });
  return new Promise((resolve, reject) => {
    server.bindAsync('127.0.0.1:0', ServerCredentials.createInsecure(), (error, port) =>
      error === null ? resolve(port) : reject(error),
    );
  });
}

function sessionOf(target: RevokeRequest['target']): { kind: 'session'; sessionId: string } {
  if (target?.$case !== 'sessionId') throw new TypeError('the bench revokes sessions');
  return { kind: 'session', sessionId: target.value };
}

executeCommands(commands);
