/** The stores of auth on a fresh PostgreSQL database. */

import { randomUUID } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';
import { readPublishedKeys } from '../../../services/auth/keys/store.js';
import type { LogBatch } from '../../../services/auth/records/revocations.js';
import { createInstanceStore as createPostgresInstanceStore } from '../../../services/auth/revocation/instance-store.js';
import { createRevocationStore } from '../../../services/auth/revocation/store.js';
import { createAuthStore } from '../../../services/auth/store.js';
import { type Database, openDatabase } from '../../../services/common/database/database.js';
import { createLog } from '../../../services/common/host/log.js';
import { installDemoPolicy } from '../../services/auth/demo-policy.js';
import { freshDatabase } from '../../support/postgres.js';
import type { AuthStoreUnderTest } from './store-under-test.js';

export async function openPostgres(): Promise<AuthStoreUnderTest> {
  const fresh = await freshDatabase();
  const migrations = new URL('../../../services/auth/migrations/', import.meta.url);
  const database = openDatabase({
    url: fresh.url,
    migrations,
    log: createLog({ service: 'test', level: 'silent' }),
  });
  await database.ready(AbortSignal.timeout(45_000));
  await installDemoPolicy(database);
  const passedOn: LogBatch[] = [];
  const store = createAuthStore({ database, onRevoked: (batch) => passedOn.push(batch) });
  return {
    store,
    log: createRevocationStore({ database, publishedKeys: readPublishedKeys }),
    instances: createPostgresInstanceStore(database),
    passedOn,
    addUser: async () => {
      const userId = randomUUID();
      const username = `user-${userId}`;
      const user = {
        userId,
        username,
        nameSkeleton: username,
        passwordHash: '',
        roles: ['customer'],
      } as const;
      await store.transaction((tx) => tx.users.insert(user));
      return { userId, username };
    },
    addClient: async () => {
      const clientId = `client-${randomUUID()}`;
      const client = {
        clientId,
        credentials: [],
        audiences: [],
        scopes: [],
        exchangeAudiences: [],
        exchangeScopes: undefined,
        certificateBound: false,
      };
      await store.transaction((tx) => tx.clients.insertWhenAbsent(client));
      return clientId;
    },
    sleep: (ms) => sleep(ms),
    expireEntries: () => expireEntries(database),
    close: async () => {
      await database.close();
      await fresh.drop();
    },
  };
}

/** Makes every entry old enough to be dropped, in the same order, with the trigger that forbids changes disabled. */
async function expireEntries(database: Database): Promise<void> {
  await database.transaction(async (sql) => {
    await sql.query('ALTER TABLE revocation_entries DISABLE TRIGGER revocation_entries_only_grow');
    await sql.query(
      `UPDATE revocation_entries SET keep_until = keep_until - (latest.time - clock_timestamp()) - interval '1 ms'
       FROM (SELECT max(keep_until) AS time FROM revocation_entries) AS latest`,
    );
    await sql.query('ALTER TABLE revocation_entries ENABLE TRIGGER revocation_entries_only_grow');
  });
}
