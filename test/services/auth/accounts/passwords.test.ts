/** Tests of password hashing. */

import { hash as argon2Hash } from '@node-rs/argon2';
import { systemClock } from '@portcullis/guard/clock';
import { expect } from 'chai';
import { createPasswords, passwordFault } from '../../../../services/auth/accounts/passwords.js';
import { createFairQueue } from '../../../../services/auth/security/fair-queue.js';
import { codeOf } from '../../../support/outcomes.js';

const LIMITS = { atOnceMax: 2, waitingMax: 20, waitMaxMs: 60_000 };

describe('passwords', () => {
  const queueOf = () => createFairQueue({ name: 'passwords', limits: LIMITS, clock: systemClock });
  const passwords = createPasswords(queueOf());

  it('are hashed with argon2id, 19 MiB, two passes, one lane and a salt each', async () => {
    const [one, two] = [await passwords.hash('correct horse'), await passwords.hash('correct horse')];
    expect(one).to.match(/^\$argon2id\$v=19\$m=19456,t=2,p=1\$/);
    expect(one).to.not.equal(two);
  });

  it('verify only against their own hash', async () => {
    const hash = await passwords.hash('correct horse');
    expect(await passwords.verify(hash, 'correct horse')).to.equal(true);
    for (const other of ['correct horse ', 'Correct horse', '', 'x'.repeat(1_000_000)]) {
      expect(await passwords.verify(hash, other)).to.equal(false);
    }
  });

  it('are equal whether an accent is composed or decomposed', async () => {
    const hash = await passwords.hash('caf\u00e9 noir');
    expect(await passwords.verify(hash, 'cafe\u0301 noir')).to.equal(true);
  });

  it('never verify for a user without a password, not even the decoy', async () => {
    expect(await passwords.verify(undefined, 'nobody has this password')).to.equal(false);
    expect(await passwords.verify(undefined, '')).to.equal(false);
  });

  it('are hashed a limited number at a time, and fail with RATE_LIMITED when the queue is full', async function () {
    this.timeout(180_000);
    const crowded = createPasswords(queueOf());
    // A hash with low cost, because the stored hash decides how long a verification takes.
    const hash = await argon2Hash('correct horse', { memoryCost: 8, timeCost: 1 });
    const room = LIMITS.atOnceMax + LIMITS.waitingMax;
    const attempts = Array.from({ length: room + 3 }, () => crowded.verify(hash, 'correct horse'));
    const refused = await Promise.all(attempts.slice(room).map((attempt) => codeOf(attempt)));
    expect(refused).to.deep.equal(['RATE_LIMITED', 'RATE_LIMITED', 'RATE_LIMITED']);
    expect(await Promise.all(attempts.slice(0, room))).to.deep.equal(Array<boolean>(room).fill(true));
    expect(await crowded.verify(hash, 'correct horse')).to.equal(true);
  });

  it('release their slot when hashing fails', async () => {
    const failing = createPasswords(queueOf());
    for (let count = 0; count < LIMITS.atOnceMax + 1; count += 1) {
      await failing.verify('no hash', 'password').then(
        () => expect.fail('a broken hash was compared'),
        () => undefined,
      );
    }
    expect(await failing.verify(await failing.hash('password'), 'password')).to.equal(true);
  });

  it('must have 8 to 256 characters of valid UTF-8', () => {
    expect(passwordFault('12345678')).to.equal(undefined);
    for (const bad of ['1234567', 'x'.repeat(257), 'lone \uD800 surrogate', 'bad bytes \uFFFD']) {
      expect(passwordFault(bad), bad).to.be.a('string');
    }
  });
});
