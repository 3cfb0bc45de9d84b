/** Responses that the last version before JSON stored, across the migration of each service. */

import { cp, mkdir, mkdtemp, readdir, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';
import { serialize } from 'node:v8';
import { expect } from 'chai';
import { type Database, openDatabase } from '../../services/common/database/database.js';
import { oncePerRequest } from '../../services/common/database/requests.js';
import { createLog } from '../../services/common/host/log.js';
import { type FreshDatabase, freshDatabase } from '../support/postgres.js';

const log = createLog({ service: 'test', level: 'silent' });
const ANSWER = { amount: 10n, at: new Date(5), bytes: Buffer.from('b'), none: undefined };
const REQUEST = { subject: 'alice', method: 'Deposit', payload: '{"n":1}' };

for (const [service, migration] of [
  ['auth', '0012-readable-answers.sql'],
  ['inventory', '0003-readable-answers.sql'],
  ['payment', '0005-readable-answers.sql'],
] as const) {
  describe(`the migration of ${service} to readable responses`, () => {
    let folder: string;
    let fresh: FreshDatabase;
    let old: Database;
    let migrated: Database;

    before(async () => {
      folder = await mkdtemp(join(tmpdir(), 'portcullis-answers-'));
      fresh = await freshDatabase();
      const all = fileURLToPath(new URL(`../../services/${service}/migrations/`, import.meta.url));
      const earlier = (await readdir(all)).filter((name) => name < migration);
      await mkdir(join(folder, 'before'));
      for (const name of earlier) await cp(join(all, name), join(folder, 'before', name));
      const open = async (path: string): Promise<Database> => {
        const database = openDatabase({ url: fresh.url, migrations: pathToFileURL(path), log });
        await database.ready(AbortSignal.timeout(45_000));
        return database;
      };
      old = await open(join(folder, 'before'));
      await answerAsBefore('before the migration');
      migrated = await open(all);
    });
    after(async () => {
      await migrated.close();
      await old.close();
      await fresh.drop();
      await rm(folder, { recursive: true });
    });

    /** Stores a response with the statement of the previous version. */
    async function answerAsBefore(requestId: string): Promise<void> {
      await old.query(
        `INSERT INTO requests (subject, method, request_id, payload_hash, answer)
           VALUES ($1, $2, $3, sha256(convert_to($4, 'UTF8')), $5) ON CONFLICT DO NOTHING`,
        [REQUEST.subject, REQUEST.method, requestId, REQUEST.payload, serialize(ANSWER)],
      );
    }
    function retry(requestId: string): Promise<unknown> {
      const request = { ...REQUEST, requestId };
      return migrated.transaction((sql) => oncePerRequest(sql, request, async () => 'carried out again'));
    }

    it('keeps the first response for a retry after the upgrade', async () => {
      expect(await retry('before the migration')).to.deep.equal(ANSWER);
    });

    it('lets instances of the previous version store responses meanwhile', async () => {
      await answerAsBefore('meanwhile');
      expect(await retry('meanwhile')).to.deep.equal(ANSWER);
    });

    it('rejects a request without a response, and one with two', async () => {
      for (const answers of ['NULL, NULL', `'\\x00', '{}'`]) {
        const insert = `INSERT INTO requests (subject, method, request_id, payload_hash, answer, answer_json)
          VALUES ('s', 'm', 'r', '', ${answers})`;
        const error: unknown = await migrated.query(insert).catch((reason: unknown) => reason);
        expect(error).to.have.property('constraint', 'requests_have_one_answer');
      }
    });
  });
}
