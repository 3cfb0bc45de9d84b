/** Requests that are carried out once, with a real PostgreSQL. */

import { randomUUID } from 'node:crypto';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { serialize } from 'node:v8';
import { expect } from 'chai';
import {
  type Database,
  openDatabase,
  type TransactionOptions,
} from '../../../../services/common/database/database.js';
import { forgetRequests, oncePerRequest } from '../../../../services/common/database/requests.js';
import { CommonError } from '../../../../services/common/errors.js';
import { createLog } from '../../../../services/common/host/log.js';
import {
  REQUEST_ID_CHARACTERS_MAX,
  type RepeatableRequest,
} from '../../../../services/common/validation/request-id.js';
import { codeOf } from '../../../support/outcomes.js';
import { type FreshDatabase, freshDatabase } from '../../../support/postgres.js';

/** The table in the doc comment of `oncePerRequest`. */
const MIGRATION = `
  CREATE TABLE requests (
    subject text NOT NULL,
    method text NOT NULL,
    request_id text NOT NULL,
    payload_hash bytea NOT NULL,
    answer bytea,
    answer_json json,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (subject, method, request_id),
    CHECK (num_nonnulls(answer, answer_json) = 1)
  );
  CREATE INDEX requests_created_at ON requests (created_at);`;

const REQUEST: RepeatableRequest = {
  subject: 'alice',
  method: 'Checkout',
  requestId: 'r1',
  payload: '{"n":1}',
};

describe('a request', () => {
  let folder: string;
  let fresh: FreshDatabase;
  let database: Database;
  let runs: number;

  before(async () => {
    folder = await mkdtemp(join(tmpdir(), 'portcullis-requests-'));
    await writeFile(join(folder, '0001-requests.sql'), MIGRATION);
    fresh = await freshDatabase();
    const log = createLog({ service: 'test', level: 'silent' });
    database = openDatabase({ url: fresh.url, migrations: pathToFileURL(folder), log });
    await database.ready(new AbortController().signal);
  });
  after(async () => {
    await database.close();
    await fresh.drop();
    await rm(folder, { recursive: true });
  });
  beforeEach(async () => {
    runs = 0;
    await database.query('TRUNCATE requests');
  });

  function send<T>(request: RepeatableRequest, answer: T, options?: TransactionOptions): Promise<T> {
    return database.transaction(
      (sql) =>
        oncePerRequest(sql, request, async () => {
          runs++;
          return answer;
        }),
      options,
    );
  }

  it('is executed once, and a retry receives exactly the first response', async () => {
    const answer = {
      id: 'x',
      amount: 9_007_199_254_740_993n,
      at: new Date(5),
      bytes: Buffer.from('b'),
      none: undefined,
      lines: [{ quantity: -1n }],
    };
    expect(await send(REQUEST, answer)).to.deep.equal(answer);
    expect(await send<unknown>(REQUEST, 'another')).to.deep.equal(answer);
    expect(runs).to.equal(1);
  });

  it('has a stored response that psql can read', async () => {
    await send(REQUEST, { amount: 10n, at: new Date(5) });
    const { rows } = await database.query(
      `SELECT answer, answer_json -> 'amount' ->> '$bigint' AS amount,
         answer_json -> 'at' ->> '$date' AS at FROM requests`,
    );
    expect(rows).to.deep.equal([{ answer: null, amount: '10', at: '1970-01-01T00:00:00.005Z' }]);
  });

  for (const answer of [null, undefined, 0, '', false, [], { $bigint: '1' }, 'a\0b\uD800']) {
    it(`keeps the response ${JSON.stringify(answer)}`, async () => {
      await send<unknown>(REQUEST, answer);
      expect(await send<unknown>(REQUEST, 'another')).to.deep.equal(answer);
    });
  }

  it('receives the same response when an earlier version stored it, serialized by V8', async () => {
    const answer = { amount: 10n, at: new Date(5), bytes: Buffer.from('b'), none: undefined };
    await database.query(
      `INSERT INTO requests (subject, method, request_id, payload_hash, answer)
         VALUES ($1, $2, $3, sha256(convert_to($4, 'UTF8')), $5)`,
      [REQUEST.subject, REQUEST.method, REQUEST.requestId, REQUEST.payload, serialize(answer)],
    );
    expect(await send<unknown>(REQUEST, 'another')).to.deep.equal(answer);
    expect(await codeOf(send({ ...REQUEST, payload: '{"n":2}' }, 2))).to.equal('REQUEST_ID_REUSED');
    expect(runs).to.equal(0);
  });

  it('is recognised when its UUID is in upper case, even when it was stored in upper case', async () => {
    const lower = { ...REQUEST, requestId: randomUUID() };
    const upper = { ...lower, requestId: lower.requestId.toUpperCase() };
    expect(await send(upper, 'first')).to.equal('first');
    expect(await send(lower, 'second')).to.equal('first');
    await database.query('UPDATE requests SET request_id = upper(request_id)');
    expect(await send(upper, 'third')).to.equal('first');
    expect(await send(lower, 'fourth')).to.equal('first');
    expect(runs).to.equal(1);
  });

  it('is stored in upper case when it was sent so, because instances of the previous version look for that', async () => {
    const upper = { ...REQUEST, requestId: randomUUID().toUpperCase() };
    await send(upper, 'first');
    const { rows } = await database.query<{ request_id: string }>('SELECT request_id FROM requests');
    expect(rows).to.deep.equal([{ request_id: upper.requestId }]);
    expect(await send({ ...upper, requestId: upper.requestId.toLowerCase() }, 'second')).to.equal('first');
    expect(runs).to.equal(1);
  });

  it('is the same one when its UUID was stored in mixed case, as it was sent', async () => {
    const mixed = { ...REQUEST, requestId: 'Aa1b2c3d-0000-4000-8000-00000000abCD' };
    expect(await send(mixed, 'first')).to.equal('first');
    await database.query('UPDATE requests SET request_id = $1', [mixed.requestId]);
    expect(await send(mixed, 'second')).to.equal('first');
    expect(runs).to.equal(1);
  });

  it('is independent of requests of other callers or methods with the same id', async () => {
    await send(REQUEST, 1);
    expect(await send({ ...REQUEST, subject: 'bob' }, 2)).to.equal(2);
    expect(await send({ ...REQUEST, method: 'Deposit' }, 3)).to.equal(3);
    expect(runs).to.equal(3);
  });

  it('is rejected when its id was used with another payload', async () => {
    await send(REQUEST, 1);
    expect(await codeOf(send({ ...REQUEST, payload: '{"n":2}' }, 2))).to.equal('REQUEST_ID_REUSED');
    expect(runs).to.equal(1);
  });

  it('may be retried after it failed', async () => {
    const failing = database.transaction((sql) =>
      oncePerRequest(sql, REQUEST, () => Promise.reject(new CommonError('RATE_LIMITED', 'too many'))),
    );
    expect(await codeOf(failing)).to.equal('RATE_LIMITED');
    expect(await send(REQUEST, 'now')).to.equal('now');
  });

  it('is rejected at once while the same one is being executed', async () => {
    let finish = () => {};
    const finished = new Promise<void>((resolve) => {
      finish = resolve;
    });
    let begun = () => {};
    const begin = new Promise<void>((resolve) => {
      begun = resolve;
    });
    const slow = database.transaction((sql) =>
      oncePerRequest(sql, REQUEST, async () => {
        begun();
        await finished;
        return 'slow';
      }),
    );
    await begin;
    expect(await codeOf(send(REQUEST, 'fast'))).to.equal('REQUEST_IN_PROGRESS');
    finish();
    expect(await slow).to.equal('slow');
    expect(await send(REQUEST, 'later')).to.equal('slow');
    expect(runs).to.equal(0);
  });

  for (const isolation of ['read committed', 'repeatable read', 'serializable'] as const) {
    it(`is executed once among twenty at a time under ${isolation}`, async () => {
      const all = await Promise.allSettled(
        Array.from({ length: 20 }, (_, index) => send<number>(REQUEST, index, { isolation })),
      );
      const answers = new Set<number>();
      for (const outcome of all) {
        if (outcome.status === 'fulfilled') answers.add(outcome.value);
        else expect(outcome.reason).to.have.property('code', 'REQUEST_IN_PROGRESS');
      }
      expect(answers.size).to.equal(1);
      const { rows } = await database.query('SELECT 1 FROM requests');
      expect(rows).to.have.length(1);
    });
  }

  it('receives the first response even if its snapshot is older', async () => {
    const answer = await database.transaction(
      async (sql) => {
        await sql.query('SELECT 1 FROM requests');
        if (runs === 0) await send(REQUEST, 'first');
        return oncePerRequest(sql, REQUEST, async () => 'second');
      },
      { isolation: 'repeatable read' },
    );
    expect(answer).to.equal('first');
  });

  it('is executed every time when it has no id', async () => {
    await send({ ...REQUEST, requestId: '' }, 1);
    await send({ ...REQUEST, requestId: '' }, 1);
    expect(runs).to.equal(2);
    expect((await database.query('SELECT 1 FROM requests')).rows).to.deep.equal([]);
  });

  it('is distinguished from one whose id differs in normal form, case or blanks', async () => {
    const twins = [
      '\u00e9',
      'e\u0301',
      '\u212b',
      '\u00c5',
      'A\u030a',
      'ID',
      'id',
      ' id',
      'id ',
      '\u{1f600}'.repeat(255),
    ];
    for (const [index, requestId] of twins.entries()) {
      expect(await send({ ...REQUEST, requestId }, index)).to.equal(index);
    }
    expect(runs).to.equal(twins.length);
  });

  it('is rejected with an id that is too long or cannot be stored', async () => {
    for (const requestId of ['x'.repeat(REQUEST_ID_CHARACTERS_MAX + 1), 'a\0b', 'a\uFFFDb', 'a\uD800']) {
      expect(await codeOf(send({ ...REQUEST, requestId }, 1))).to.equal('FIELD_INVALID');
    }
    expect(runs).to.equal(0);
    expect(await send({ ...REQUEST, requestId: 'ä'.repeat(REQUEST_ID_CHARACTERS_MAX) }, 1)).to.equal(1);
  });

  it('is deleted after its retention time, not earlier', async () => {
    await send(REQUEST, 1);
    await send({ ...REQUEST, requestId: 'r2' }, 1);
    await database.query(
      `UPDATE requests SET created_at = created_at - interval '8 days' WHERE request_id = 'r1'`,
    );
    expect(await forgetRequests(database)).to.equal(1);
    const { rows } = await database.query('SELECT request_id FROM requests');
    expect(rows).to.deep.equal([{ request_id: 'r2' }]);
  });
});
