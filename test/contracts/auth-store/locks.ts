/** Which row operations block each other: the protocol relies on each of these locks. */

import { expect } from 'chai';
import type { AuthTransaction } from '../../../services/auth/transaction.js';
import {
  actorOf,
  addSession,
  anEntry,
  generationOf,
  keyOf,
  OBSERVED_MS,
  settled,
  type Under,
} from './store-under-test.js';

/** Two operations of two transactions. */
interface LockCase {
  readonly title: string;
  readonly hold: (tx: AuthTransaction, ids: LockIds) => Promise<unknown>;
  readonly attempt: (tx: AuthTransaction, ids: LockIds) => Promise<unknown>;
}

interface LockIds {
  readonly userId: string;
  readonly otherUserId: string;
  readonly sessionId: string;
  readonly clientId: string;
  readonly otherClientId: string;
  readonly kid: string;
}

const NO_SESSION = '00000000-0000-0000-0000-000000000000';

const BLOCKING: readonly LockCase[] = [
  {
    title: 'a shared lock on a user blocks raising its generation',
    hold: (tx, { userId }) => tx.users.lockShared(userId),
    attempt: (tx, { userId }) => tx.users.raiseGeneration(userId),
  },
  {
    title: 'raising the generation of a user blocks sharing the user',
    hold: (tx, { userId }) => tx.users.raiseGeneration(userId),
    attempt: (tx, { userId }) => tx.users.lockShared(userId),
  },
  {
    title: 'a lock on a user blocks sharing the user',
    hold: (tx, { userId }) => tx.users.lock(userId),
    attempt: (tx, { userId }) => tx.users.lockShared(userId),
  },
  {
    title: 'the lock on the administrators is held by one transaction at a time',
    hold: (tx) => tx.users.lockAdmins(),
    attempt: (tx) => tx.users.lockAdmins(),
  },
  {
    title: 'a shared lock on a session blocks locking it with others, unless that skips it',
    hold: (tx, { sessionId }) => tx.sessions.lockShared(sessionId),
    attempt: (tx, { sessionId }) => tx.sessions.lockEach([sessionId], 'wait'),
  },
  {
    title: 'a lock on many sessions blocks a shared lock on one of them',
    hold: (tx, { sessionId }) => tx.sessions.lockEach([sessionId], 'skip'),
    attempt: (tx, { sessionId }) => tx.sessions.lockShared(sessionId),
  },
  {
    title: 'a shared lock on a session blocks ending the others of its user',
    hold: (tx, { sessionId }) => tx.sessions.lockShared(sessionId),
    attempt: (tx, { userId }) =>
      tx.sessions.endOthersOfUser(userId, { than: NO_SESSION, why: 'REVOKED', limit: 10 }),
  },
  {
    title: 'a shared lock on a session blocks ending it',
    hold: (tx, { sessionId }) => tx.sessions.lockShared(sessionId),
    attempt: (tx, { sessionId }) => tx.sessions.end(sessionId, 'REVOKED'),
  },
  {
    title: 'a shared lock on a session blocks ending all sessions of its user',
    hold: (tx, { sessionId }) => tx.sessions.lockShared(sessionId),
    attempt: (tx, { userId }) => tx.sessions.endAllOfUser(userId, 'USER_REVOKED'),
  },
  {
    title: 'a shared lock on a session blocks ending every session',
    hold: (tx, { sessionId }) => tx.sessions.lockShared(sessionId),
    attempt: (tx) => tx.sessions.endEvery('EPOCH_ENDED'),
  },
  {
    title: 'a shared lock on a session blocks restamping the sessions of its user',
    hold: (tx, { sessionId }) => tx.sessions.lockShared(sessionId),
    attempt: (tx, { userId }) =>
      tx.sessions.restamp(userId, { from: 1n, to: 2n, scopes: ['a'], audiences: ['x'] }),
  },
  {
    title: 'an exclusive lock on a session blocks sharing it',
    hold: (tx, { sessionId }) => tx.sessions.lock(sessionId),
    attempt: (tx, { sessionId }) => tx.sessions.lockShared(sessionId),
  },
  {
    title: 'an exclusive lock on a session blocks locking it',
    hold: (tx, { sessionId }) => tx.sessions.lock(sessionId),
    attempt: (tx, { sessionId }) => tx.sessions.lock(sessionId),
  },
  {
    title: 'a shared lock on any client blocks raising the generation of a client',
    hold: (tx, { otherClientId }) => tx.clients.lockShared(otherClientId),
    attempt: (tx, { clientId }) => tx.clients.raiseGeneration(clientId),
  },
  {
    title: 'raising the generation of a client blocks sharing any client',
    hold: (tx, { clientId }) => tx.clients.raiseGeneration(clientId),
    attempt: (tx, { otherClientId }) => tx.clients.lockShared(otherClientId),
  },
  {
    title: 'a lock on the signing key blocks retiring it',
    hold: (tx) => tx.keys.lockSigning('token'),
    attempt: (tx, { kid }) => tx.keys.retire(kid),
  },
  {
    title: 'a lock on a live key blocks retiring all keys',
    hold: (tx, { kid }) => tx.keys.lockLive(kid),
    attempt: (tx) => tx.keys.retireAll(),
  },
  {
    title: 'retiring a key blocks locking it as a live key',
    hold: (tx, { kid }) => tx.keys.retire(kid),
    attempt: (tx, { kid }) => tx.keys.lockLive(kid),
  },
  {
    title: 'making keys blocks making keys elsewhere',
    hold: (tx) => tx.keys.lockCreation(),
    attempt: (tx) => tx.keys.lockCreation(),
  },
  {
    title: 'an append blocks appending elsewhere',
    hold: (tx) => tx.revocations.append([anEntry()]),
    attempt: (tx) => tx.revocations.append([anEntry()]),
  },
  {
    title: 'an append blocks opening an epoch elsewhere',
    hold: (tx) => tx.revocations.append([anEntry()]),
    attempt: (tx) => tx.revocations.openEpoch({ reason: actorOf('epoch'), actor: 'test' }),
  },
];

const FREE: readonly LockCase[] = [
  {
    title: 'shared locks on one user do not block each other',
    hold: (tx, { userId }) => tx.users.lockShared(userId),
    attempt: (tx, { userId }) => tx.users.lockShared(userId),
  },
  {
    title: 'raising the generation of a user does not block raising that of another user',
    hold: (tx, { userId }) => tx.users.raiseGeneration(userId),
    attempt: (tx, { otherUserId }) => tx.users.raiseGeneration(otherUserId),
  },
  {
    title: 'shared locks on one session do not block each other',
    hold: (tx, { sessionId }) => tx.sessions.lockShared(sessionId),
    attempt: (tx, { sessionId }) => tx.sessions.lockShared(sessionId),
  },
  {
    title: 'shared locks on one client do not block each other',
    hold: (tx, { clientId }) => tx.clients.lockShared(clientId),
    attempt: (tx, { clientId }) => tx.clients.lockShared(clientId),
  },
  {
    title: 'raising the generation of a client does not block finding it without a lock',
    hold: (tx, { clientId }) => tx.clients.raiseGeneration(clientId),
    attempt: (tx, { clientId }) => tx.clients.find(clientId),
  },
  {
    title: 'locks on the signing key do not block each other',
    hold: (tx) => tx.keys.lockSigning('token'),
    attempt: (tx) => tx.keys.lockSigning('token'),
  },
  {
    title: 'retiring a key does not block reading the live keys',
    hold: (tx, { kid }) => tx.keys.retire(kid),
    attempt: (tx) => tx.keys.live(),
  },
  {
    title: 'making keys does not block a lock on the signing key',
    hold: (tx) => tx.keys.lockCreation(),
    attempt: (tx) => tx.keys.lockSigning('token'),
  },
];

export function describeLocks(under: Under): void {
  const ids = async (): Promise<LockIds> => {
    const { store, addUser, addClient } = under();
    const [{ userId }, { userId: otherUserId }] = [await addUser(), await addUser()];
    const { sessionId } = await addSession(under(), { userId });
    const [clientId, otherClientId] = [await addClient(), await addClient()];
    const key = keyOf('token', 'signing');
    await store.transaction(async (tx) => {
      await tx.keys.retireAll();
      await tx.keys.insert(key);
    });
    return { userId, otherUserId, sessionId, clientId, otherClientId, kid: key.kid };
  };

  describe('locks', () => {
    for (const { title, hold, attempt } of BLOCKING) {
      it(title, async () => {
        const { store, sleep } = under();
        const known = await ids();
        const waiting = await store.transaction(async (tx) => {
          await hold(tx, known);
          const attempted = settled(store.transaction((other) => attempt(other, known)));
          await sleep(OBSERVED_MS);
          expect(attempted.isSettled()).to.equal(false);
          return attempted;
        });
        await waiting.promise;
      });
    }
    for (const { title, hold, attempt } of FREE) {
      it(title, async () => {
        const { store } = under();
        const known = await ids();
        await store.transaction(async (tx) => {
          await hold(tx, known);
          await store.transaction((other) => attempt(other, known));
        });
      });
    }

    it('show a transaction that has waited what the holder changed', async () => {
      const { store } = under();
      const { userId, sessionId } = await ids();
      const generation = await generationOf(under(), userId);
      const [user, session] = await store.transaction(async (tx) => {
        await tx.users.raiseGeneration(userId);
        await tx.sessions.end(sessionId, 'REVOKED');
        const reading = [
          settled(store.transaction((other) => other.users.lockShared(userId))),
          settled(store.transaction((other) => other.sessions.lockShared(sessionId))),
        ] as const;
        await under().sleep(OBSERVED_MS);
        return reading;
      });
      expect((await user.promise)?.generation).to.equal(generation + 1n);
      expect((await session.promise)?.open).to.equal(false);
    });
  });
}
