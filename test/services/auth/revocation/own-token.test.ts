/** Revocations of many targets, the token of the caller among them, with a real guard. */

import { errorOf } from '@portcullis/guard/client';
import { expect } from 'chai';
import { RevokeWait } from '../../../../proto/gen/portcullis/revocation/v1/revocation.js';
import { ask } from '../../../../scripts/system/calls.js';
import { type Cluster, startCluster } from '../cluster.js';
import { addUser, logIn } from '../instance.js';

describe('a caller whose own token is one of many targets', function () {
  this.timeout(180_000);
  let cluster: Cluster;

  before(async () => {
    // Long, because a call that ends with a lease would look like one that ends with its token.
    cluster = await startCluster({ leaseMs: 20_000 });
  });
  after(() => cluster.close());

  /** Adds open sessions of a user. */
  const addSessions = async (userId: string, count: number): Promise<string[]> => {
    const { rows } = await cluster.replicas[0].database.query<{ session_id: string }>(
      `INSERT INTO sessions (session_id, user_id, client_id, generation, client_generation, device_name, audiences,
                             scopes, amr, create_time, last_use_time, expire_time)
       SELECT gen_random_uuid(), $1, 'direct', 1, 1, '', '{}', '{}', '{}', now(), now(), now() + interval '1 day'
       FROM generate_series(1, $2) RETURNING session_id`,
      [userId, count],
    );
    return rows.map(({ session_id: sessionId }) => sessionId);
  };
  const openSessionsOf = async (userId: string): Promise<number> => {
    const { rows } = await cluster.replicas[0].database.query<{ count: bigint }>(
      'SELECT count(*) FROM sessions WHERE user_id = $1 AND end_time IS NULL',
      [userId],
    );
    return Number(rows[0]?.count);
  };

  it('ends all sessions that match a filter', async () => {
    const { userId } = cluster.admin;
    for (const wait of [RevokeWait.REVOKE_WAIT_NONE, RevokeWait.REVOKE_WAIT_KNOWN_INSTANCES]) {
      const token = await cluster.token(cluster.admin);
      // More than end at once: the caller's comes anywhere between them.
      await addSessions(userId, 600);
      const open = await openSessionsOf(userId);
      const service = cluster.replicas[0].revocationService;
      const filter = { role: '', clientId: '', loggedInBeforeTime: undefined, network: '', userId };
      const outcome = await ask(
        service.revokeSessions.bind(service),
        { filter, reason: 'a test', wait, dryRun: false, fences: [] },
        { token, timeoutMs: 60_000 },
      ).catch((error: unknown) => errorOf(error));
      // A caller that waits is cut, as with a single revocation.
      if (wait === RevokeWait.REVOKE_WAIT_NONE) expect(outcome).to.include({ sessionCount: BigInt(open) });
      else expect(outcome).to.include({ reason: 'TOKEN_REVOKED' });
      expect(await openSessionsOf(userId)).to.equal(0);
    }
  });

  it('receives the results of all targets', async () => {
    const { userId } = cluster.admin;
    const other = await addUser(cluster.replicas[0]);
    for (const own of ['token', 'session', 'user'] as const) {
      const login = await logIn(cluster.replicas[0], cluster.admin);
      const values = {
        token: { $case: 'token', value: login.access.token },
        session: { $case: 'sessionId', value: login.session.sessionId },
        user: { $case: 'userId', value: userId },
      } as const;
      const others = await addSessions(other.userId, 600);
      const targets = [
        { target: values[own] },
        ...others.map((value) => ({ target: { $case: 'sessionId', value } as const })),
        { target: { $case: 'userId', value: other.userId } as const },
      ];
      const service = cluster.replicas[0].revocationService;
      const { results } = await ask(
        service.revoke.bind(service),
        {
          target: undefined,
          targets,
          reason: 'a test',
          wait: RevokeWait.REVOKE_WAIT_NONE,
          dryRun: false,
          fences: [],
        },
        { token: login.access.token, timeoutMs: 60_000 },
      );
      expect(new Set(results.map(({ errorReason }) => errorReason))).to.deep.equal(new Set(['']));
      const sequences = results.map(({ sequence }) => sequence);
      expect(sequences.every((sequence) => sequence <= (sequences[0] ?? 0n))).to.equal(true);
    }
  });
});
