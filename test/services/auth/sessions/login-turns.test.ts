/** Tests of the turns of logins in the queue for password hashes. */

import { systemClock } from '@portcullis/guard/clock';
import { expect } from 'chai';
import type { Attempt } from '../../../../services/auth/security/throttle.js';
import { createLoginTurns } from '../../../../services/auth/sessions/login-turns.js';

const DAY_MS = 86_400_000;
const NETWORK = '192.0.2.1';

const attempt = (name: string | undefined, isKnown = false): Attempt => ({
  networkKey: undefined,
  nameKey: name === undefined ? undefined : Buffer.from(name),
  isKnown,
  uncount: async () => {},
  refusal: async () => undefined,
});
const keyOf = (name: string): string => Buffer.from(name).toString('base64url');

describe('the turn of a login', () => {
  let nowMs = 0;
  const turns = () => createLoginTurns({ ...systemClock, monotonicMs: () => nowMs });

  it('is that of its name in a known network, and that of the network in an unknown one', () => {
    const { callerOf } = turns();
    expect(callerOf(attempt('alice', true), NETWORK)).to.deep.equal({
      importance: 'known',
      key: keyOf('alice'),
    });
    expect(callerOf(attempt('alice'), NETWORK)).to.deep.equal({ importance: 'unknown', key: NETWORK });
    for (const isKnown of [false, true]) {
      expect(callerOf(attempt(undefined, isKnown), NETWORK)).to.deep.equal({
        importance: 'unknown',
        key: NETWORK,
      });
    }
  });

  it('is that of a recent name for a day after its last login, and of no other name', () => {
    const { callerOf, succeeded } = turns();
    const importanceAt = (ms: number, name = 'alice'): string => {
      nowMs = ms;
      return callerOf(attempt(name), NETWORK).importance;
    };
    nowMs = 1000;
    succeeded(attempt('alice'));
    succeeded(attempt(undefined));
    expect(callerOf(attempt('alice'), NETWORK)).to.deep.equal({ importance: 'recent', key: keyOf('alice') });
    expect(importanceAt(1000, 'bob')).to.equal('unknown');
    expect(importanceAt(1000 + DAY_MS - 1)).to.equal('recent');
    expect(importanceAt(1000 + DAY_MS)).to.equal('unknown');
  });

  it('forgets the oldest names beyond ten thousand', () => {
    const { callerOf, succeeded } = turns();
    for (let count = 0; count <= 10_000; count += 1) succeeded(attempt(`user ${count}`));
    const importances = [0, 1, 10_000].map((count) => callerOf(attempt(`user ${count}`), NETWORK).importance);
    expect(importances).to.deep.equal(['unknown', 'recent', 'recent']);
  });
});
