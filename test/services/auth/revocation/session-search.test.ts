/** The search for the sessions of a revocation, in PostgreSQL and over a store that a test holds up. */

import { systemClock } from '@portcullis/guard/clock';
import { expect } from 'chai';
import type { MatchedSession, SessionFilter } from '../../../../services/auth/records/sessions.js';
import {
  createSessionSearch,
  type SessionSearch,
} from '../../../../services/auth/revocation/session-search.js';
import { SEARCHED_MAX } from '../../../../services/auth/sessions/search-store.js';
import { codeOf, serviceErrorOf } from '../../../support/outcomes.js';
import { DEMO_POLICY } from '../demo-policy.js';
import { openTestLog, type TestLog } from './revocation-support.js';

const ANY: SessionFilter = {
  role: undefined,
  clientId: undefined,
  loggedInBeforeTime: undefined,
  network: undefined,
  userId: undefined,
};

const OLGA = { actor: 'olga', signal: new AbortController().signal };

async function idsOf(pages: AsyncIterable<readonly MatchedSession[]>): Promise<string[]> {
  const ids: string[] = [];
  for await (const page of pages) ids.push(...page.map(({ sessionId }) => sessionId));
  return ids;
}

describe('the search for sessions', () => {
  let log: TestLog;
  let search: SessionSearch;
  let statements: number;

  before(async () => {
    log = await openTestLog();
    search = createSessionSearch({
      store: {
        transaction: (work) => {
          statements += 1;
          return log.transaction((tx) => work(tx));
        },
      },
      clock: systemClock,
    });
  });
  beforeEach(() => {
    statements = 0;
  });
  after(() => log.close());

  /** Adds open sessions, and returns their ids in order. */
  async function addSessions(userId: string, count: number): Promise<string[]> {
    const { rows } = await log.database.query<{ session_id: string }>(
      `INSERT INTO sessions (session_id, user_id, client_id, generation, client_generation, device_name, audiences,
                             scopes, amr, create_time, last_use_time, expire_time)
       SELECT gen_random_uuid(), $1, 'direct', 1, 1, '', '{}', '{}', '{}', now(), now(), now() + interval '1 day'
       FROM generate_series(1, $2) RETURNING session_id`,
      [userId, count],
    );
    return rows.map(({ session_id: sessionId }) => sessionId).toSorted();
  }

  it('finds every session once, in steps that look at a bounded number of them', async () => {
    const [alice, bob] = [await log.addUser(), await log.addUser()];
    const all = await addSessions(alice, SEARCHED_MAX + 200);
    const few = await addSessions(bob, 3);
    await log.database.query("INSERT INTO user_roles VALUES ($1, 'operator')", [bob]);
    expect(await idsOf(search.pages({ ...ANY, userId: alice }, OLGA))).to.deep.equal(all);
    expect(await search.count({ ...ANY, userId: alice }, OLGA)).to.deep.include({ sessionCount: all.length });
    statements = 0;
    // All sessions are looked at for these few.
    expect(await idsOf(search.pages({ ...ANY, role: 'operator' }, OLGA))).to.deep.equal(few);
    expect(statements).to.equal(2);
    const counted = await search.count({ ...ANY, role: 'operator' }, OLGA);
    expect(counted.sessionCount).to.equal(few.length);
    expect(counted.sessions.map(({ sessionId }) => sessionId)).to.deep.equal(few);
    statements = 0;
    // The sessions of a user are found by an index.
    expect(await idsOf(search.pages({ ...ANY, userId: bob }, OLGA))).to.deep.equal(few);
    expect(statements).to.equal(1);
  });

  it('lists the first hundred', async () => {
    const user = await log.addUser();
    const all = await addSessions(user, 130);
    const { sessions, sessionCount } = await search.count({ ...ANY, userId: user }, OLGA);
    expect(sessionCount).to.equal(all.length);
    expect(sessions.map(({ sessionId }) => sessionId)).to.deep.equal(all.slice(0, 100));
  });

  it('knows a network by every spelling of an address in it', async () => {
    const [four, six] = [
      await log.addSession(await log.addUser()),
      await log.addSession(await log.addUser()),
    ];
    for (const [session, network] of [
      [four, '192.0.2.7'],
      [six, '2001:db8:0:a'],
    ]) {
      await log.database.query(
        `INSERT INTO security_events_unplaced
           (event_id, life, type, event_time, subject, subjects, actor, reason, network, source, details, keep_until)
         VALUES (gen_random_uuid(), 'routine', 'session-established', now(), '{}', ARRAY[$1], '', '', $2, 'auth', '{}',
                 now() + interval '1 day')`,
        [session, network],
      );
    }
    const matching = (network: string) => idsOf(search.pages({ ...ANY, network }, OLGA));
    for (const network of ['192.0.2.7', '::ffff:192.0.2.7', '::FFFF:c000:207']) {
      expect(await matching(network), network).to.deep.equal([four]);
    }
    for (const network of ['2001:db8:0:a', '2001:DB8:0:000a', '2001:db8:0:a::1', '2001:db8:0:a::/64']) {
      expect(await matching(network), network).to.deep.equal([six]);
    }
  });

  it('rejects conditions that no session or every session meets', async () => {
    for (const [filter, field] of [
      [{}, 'filter'],
      [{ role: 'Operator' }, 'filter.role'],
      [{ network: '192.0.2.0/24' }, 'filter.network'],
      [{ network: '192.0.2.7/32' }, 'filter.network'],
      [{ network: '0.0.0.0/0' }, 'filter.network'],
      [{ network: '2001:db8::/32' }, 'filter.network'],
      [{ network: 'fe80::1%eth0' }, 'filter.network'],
      [{ network: 'localhost' }, 'filter.network'],
      [{ loggedInBeforeTime: new Date(Date.now() + 10_000) }, 'filter.logged_in_before_time'],
      [{ loggedInBeforeTime: new Date(-1) }, 'filter.logged_in_before_time'],
      [{ loggedInBeforeTime: new Date(Number.NaN) }, 'filter.logged_in_before_time'],
    ] as const) {
      for (const outcome of [
        search.count({ ...ANY, ...filter }, OLGA),
        (async () => idsOf(search.pages({ ...ANY, ...filter }, OLGA)))(),
      ]) {
        const { code, violations } = await serviceErrorOf(outcome);
        expect([code, violations[0]?.field], JSON.stringify(filter)).to.deep.equal(['FIELD_INVALID', field]);
      }
    }
  });
});

describe('the steps of searches', () => {
  const filter = { ...ANY, clientId: 'direct' };
  let running: (() => void)[];
  let search: SessionSearch;

  beforeEach(() => {
    running = [];
    search = createSessionSearch({
      store: {
        transaction: (work) =>
          new Promise((resolve, reject) => {
            const rows = {
              match: () => Promise.resolve({ sessions: [], next: 'more' }),
              countMatching: () => Promise.resolve({ count: 1, next: 'more' }),
            };
            running.push(
              () =>
                void work({ sessions: rows, policy: { current: () => Promise.resolve(DEMO_POLICY) } }).then(
                  resolve,
                  reject,
                ),
            );
          }),
      },
      clock: systemClock,
    });
  });
  /** A turn passes on in the turn of the event loop after the one in which it has ended. */
  const turn = async () => {
    await new Promise(setImmediate);
    await new Promise(setImmediate);
  };

  it('run one at a time, and callers take turns', async () => {
    const ended = new AbortController();
    const counts = ['olga', 'olga', 'eve'].map((actor) =>
      search.count(filter, { actor, signal: ended.signal }).catch((error: unknown) => error),
    );
    await turn();
    for (let step = 1; step <= 5; step += 1) {
      expect(running).to.have.length(step);
      running.at(-1)?.();
      await turn();
    }
    ended.abort('over');
    running.at(-1)?.();
    expect(await Promise.all(counts)).to.deep.equal(['over', 'over', 'over']);
    // Nothing searches for a caller that has left.
    expect(running).to.have.length(6);
  });

  it('are refused to a caller with too many searches', async () => {
    const callers = Array.from({ length: 21 }, () => new AbortController());
    const searches = callers.map(({ signal }) =>
      search.count(filter, { actor: 'olga', signal }).catch((error: unknown) => error),
    );
    expect(await codeOf(search.count(filter, OLGA))).to.equal('RATE_LIMITED');
    await turn();
    // One that has begun takes a turn for each of its steps, and is not refused between two of them.
    for (let step = 1; step <= 25; step += 1) {
      expect(running).to.have.length(step);
      running.at(-1)?.();
      await turn();
    }
    for (const caller of callers) caller.abort('over');
    running.at(-1)?.();
    expect(new Set(await Promise.all(searches))).to.deep.equal(new Set(['over']));
  });
});
