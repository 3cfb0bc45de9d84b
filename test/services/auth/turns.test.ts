/** Users of auth take turns when they wait for its database. */

import { parseConfig } from '../../../services/auth/config.js';
import { createParts, type Parts } from '../../../services/auth/parts.js';
import { createSecurityStore } from '../../../services/auth/security/store.js';
import type { Database } from '../../../services/common/database/database.js';
import { type Closer, createCloser } from '../../../services/common/host/closer.js';
import { createLog } from '../../../services/common/host/log.js';
import { type FreshDatabase, freshDatabase } from '../../support/postgres.js';
import { expectTurns, openNarrowDatabase } from '../turns.js';
import { MIGRATIONS } from './revocation/revocation-support.js';

const PAGE = { pageSize: 0, pageToken: '' };

describe('a user of auth who fills the queue for the database', () => {
  let fresh: FreshDatabase;
  let database: Database;
  let parts: Parts;
  let closer: Closer;

  before(async () => {
    fresh = await freshDatabase();
    const config = parseConfig({
      DATABASE_URL: fresh.url,
      PORTCULLIS_ISSUER: 'http://127.0.0.1:1',
      PORTCULLIS_LISTEN: '127.0.0.1:0',
      PORTCULLIS_OPS_LISTEN: '127.0.0.1:0',
      PORTCULLIS_KEY_ENCRYPTION_KEY: Buffer.alloc(32, 7).toString('base64url'),
    });
    const log = createLog({ service: 'auth', level: 'silent' });
    closer = createCloser(log);
    database = await openNarrowDatabase(fresh.url, MIGRATIONS);
    closer.add('database', database.close);
    parts = createParts(config, { database, log, closer, onRevoked: () => {} });
  });
  after(async () => {
    await closer.closeAll();
    await fresh.drop();
  });

  const reads: Record<string, (caller: string) => Promise<unknown>> = {
    ListUsers: (caller) => parts.users.list(PAGE, caller),
    ListClients: (caller) => parts.clients.list(PAGE, caller),
    ListSecurityEvents: (caller) => parts.events.list({}, PAGE, caller),
    'the beginning of WatchSecurityEvents': (caller) => createSecurityStore(database).place(caller),
    WatchSecurityEvents: (caller) => createSecurityStore(database).eventsAfter(0n, {}, 10, caller),
  };
  for (const [method, read] of Object.entries(reads)) {
    it(`does not keep others from ${method}`, () => expectTurns(database, read));
  }
});
