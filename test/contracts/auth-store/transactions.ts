/** Transactions: all or nothing, effects after the commit, limits of time, requests that run once. */

import { randomBytes, randomUUID } from 'node:crypto';
import { expect } from 'chai';
import { sessionRevocation } from '../../../services/auth/revocation/log.js';
import type { AuthTransaction, IdempotentRequest } from '../../../services/auth/transaction.js';
import {
  anEntry,
  codeOf,
  entryOf,
  generationOf,
  goOn,
  headOf,
  inDays,
  LIMIT_MS,
  outcomeOf,
  sessionOf,
  settled,
  type Under,
} from './store-under-test.js';

type Work = (tx: AuthTransaction) => Promise<unknown>;

export function describeTransactions(under: Under): void {
  describe('a transaction', () => {
    it('shows its writes to itself at once, and to others after the commit', async () => {
      const { store, addUser } = under();
      const { userId } = await addUser();
      const before = await generationOf(under(), userId);
      await store.transaction(async (tx) => {
        await tx.users.raiseGeneration(userId);
        expect((await tx.users.lockShared(userId))?.generation).to.equal(before + 1n);
        const elsewhere = await store.transaction((other) => other.users.find(userId));
        expect(elsewhere?.userId).to.equal(userId);
      });
      expect(await generationOf(under(), userId)).to.equal(before + 1n);
    });

    it('writes nothing when its work throws', async () => {
      const { store, addUser, passedOn } = under();
      const { userId } = await addUser();
      const session = sessionOf(userId);
      const hash = randomBytes(32);
      const generation = await generationOf(under(), userId);
      const head = await headOf(under());
      const batches = passedOn.length;
      const effects: string[] = [];
      const failure = new Error('on purpose');
      const failing = store.transaction(async (tx) => {
        tx.afterCommit(() => effects.push('after commit'));
        await tx.users.raiseGeneration(userId);
        await tx.sessions.insert(session);
        await tx.sessions.insertRefreshToken({ hash, sessionId: session.sessionId, expireTime: inDays(7) });
        await tx.revocations.append([entryOf(sessionRevocation(session.sessionId))]);
        throw failure;
      });
      expect(await outcomeOf(failing)).to.equal(failure);
      expect(await generationOf(under(), userId)).to.equal(generation);
      expect(await store.transaction((tx) => tx.sessions.lockShared(session.sessionId))).to.equal(undefined);
      expect(await store.transaction((tx) => tx.sessions.findRefreshToken(hash))).to.equal(undefined);
      expect(await headOf(under())).to.deep.equal(head);
      expect(passedOn).to.have.length(batches);
      expect(effects).to.deep.equal([]);
    });

    it('runs its effects once, after the commit, and before it returns', async () => {
      const { store } = under();
      const order: string[] = [];
      await store.transaction(async (tx) => {
        tx.afterCommit(() => order.push('effect'));
        await tx.databaseTime();
        order.push('work');
      });
      order.push('returned');
      expect(order).to.deep.equal(['work', 'effect', 'returned']);
    });

    it('reads the time of each statement, not the time at which it began', async () => {
      const { store, sleep } = under();
      const [first, second] = await store.transaction(async (tx) => {
        const before = await tx.databaseTime();
        await sleep(30);
        return [before, await tx.databaseTime()] as const;
      });
      expect(second.getTime() - first.getTime()).to.be.at.least(25);
    });

    it('fails with DEPENDENCY_UNAVAILABLE when it waits for a lock for more than a second', async () => {
      const { store, addUser } = under();
      const { userId } = await addUser();
      const locks: [hold: Work, attempt: Work][] = [
        [(tx) => tx.users.lockShared(userId), (tx) => tx.users.raiseGeneration(userId)],
        [(tx) => tx.revocations.append([anEntry()]), (tx) => tx.revocations.append([anEntry()])],
      ];
      for (const [hold, attempt] of locks) {
        const waiting = await store.transaction(async (tx) => {
          await hold(tx);
          const outcome = settled(outcomeOf(store.transaction(attempt)));
          // A holder that continues keeps its lock.
          while (!outcome.isSettled()) await goOn(under(), tx);
          return outcome.promise;
        });
        expect(codeOf(await waiting)).to.equal('DEPENDENCY_UNAVAILABLE');
      }
    });

    it('loses its locks, and fails with DEPENDENCY_UNAVAILABLE, when it is silent for more than a second', async () => {
      const { store, addUser, sleep } = under();
      const { userId } = await addUser();
      const generation = await generationOf(under(), userId);
      const silent = store.transaction(async (tx) => {
        await tx.users.raiseGeneration(userId);
        await sleep(LIMIT_MS + 500);
        await tx.databaseTime();
      });
      const outcome = outcomeOf(silent);
      await sleep(LIMIT_MS / 2);
      const raised = await store.transaction((tx) => tx.users.raiseGeneration(userId));
      expect(raised).to.equal(generation + 1n);
      expect(codeOf(await outcome)).to.equal('DEPENDENCY_UNAVAILABLE');
    });
  });
}

export function describeRequests(under: Under): void {
  const request = (over: Partial<IdempotentRequest> = {}): IdempotentRequest => ({
    subject: 'olga',
    method: 'Test',
    requestId: randomUUID(),
    payload: 'one',
    ...over,
  });
  /** Work that counts its runs, and returns values of all kinds that responses contain. */
  function counting() {
    let runs = 0;
    const work = async () => {
      runs += 1;
      return { run: runs, sequence: 5n, time: new Date(1234), epoch: Buffer.from('epoch'), gone: undefined };
    };
    return { work, runs: () => runs };
  }

  describe('a request with an id', () => {
    it('runs once, and every repetition receives the first response', async () => {
      const { store } = under();
      const { work, runs } = counting();
      const asked = request();
      const first = await store.transaction((tx) => tx.once(asked, work));
      const second = await store.transaction((tx) => tx.once(asked, work));
      expect(second).to.deep.equal(first);
      expect(first).to.deep.include({
        run: 1,
        sequence: 5n,
        time: new Date(1234),
        epoch: Buffer.from('epoch'),
      });
      expect(runs()).to.equal(1);
    });

    it('is independent of requests of another subject or method', async () => {
      const { store } = under();
      const { work, runs } = counting();
      const asked = request();
      for (const over of [{}, { subject: 'otto' }, { method: 'Other' }]) {
        await store.transaction((tx) => tx.once({ ...asked, ...over }, work));
      }
      expect(runs()).to.equal(3);
    });

    it('fails with REQUEST_ID_REUSED when it comes with another payload', async () => {
      const { store } = under();
      const { work, runs } = counting();
      const asked = request();
      await store.transaction((tx) => tx.once(asked, work));
      const reused = store.transaction((tx) => tx.once({ ...asked, payload: 'two' }, work));
      expect(codeOf(await outcomeOf(reused))).to.equal('REQUEST_ID_REUSED');
      expect(runs()).to.equal(1);
    });

    it('fails with REQUEST_IN_PROGRESS while it runs in another transaction', async () => {
      const { store } = under();
      const { work, runs } = counting();
      const asked = request();
      await store.transaction((tx) =>
        tx.once(asked, async () => {
          const answer = await work();
          const second = store.transaction((other) => other.once(asked, work));
          expect(codeOf(await outcomeOf(second))).to.equal('REQUEST_IN_PROGRESS');
          return answer;
        }),
      );
      expect(runs()).to.equal(1);
    });

    it('runs again when its transaction was rolled back', async () => {
      const { store } = under();
      const { work, runs } = counting();
      const asked = request();
      const failing = store.transaction(async (tx) => {
        await tx.once(asked, work);
        throw new Error('on purpose');
      });
      await outcomeOf(failing);
      expect((await store.transaction((tx) => tx.once(asked, work))).run).to.equal(2);
      expect(runs()).to.equal(2);
    });

    it('runs every time when the id is empty', async () => {
      const { store } = under();
      const { work, runs } = counting();
      for (let time = 0; time < 2; time += 1) {
        await store.transaction((tx) => tx.once(request({ requestId: '' }), work));
      }
      expect(runs()).to.equal(2);
    });
  });
}
