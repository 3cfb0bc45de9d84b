/** One event for many revocations. */

import { randomUUID } from 'node:crypto';
import { expect } from 'chai';
import type { NewSecurityEvent } from '../../../../services/auth/records/security-events.js';
import { ROLLED_UP_MIN, rollUp } from '../../../../services/auth/revocation/rolled-up-events.js';

function revoked(over: Partial<NewSecurityEvent<'session-revoked'>> = {}): NewSecurityEvent {
  return {
    type: 'session-revoked',
    subject: { userId: randomUUID(), sessionId: randomUUID() },
    actor: 'olga',
    reason: 'leak',
    network: '',
    details: { initiator: 'admin' },
    ...over,
  };
}

const many = (make: () => NewSecurityEvent, count = ROLLED_UP_MIN) => Array.from({ length: count }, make);

describe('the events of many revocations', () => {
  it('are one, with their number, from the tenth alike on', () => {
    const { events, sharedIds } = rollUp(many(revoked));
    expect(events).to.have.length(1);
    expect(events[0]).to.deep.include({
      subject: {},
      actor: 'olga',
      reason: 'leak',
      details: { initiator: 'admin', revocations: ROLLED_UP_MIN },
    });
    expect(new Set(sharedIds)).to.deep.equal(new Set([events[0]?.eventId]));
  });

  it('stay their own below that number', () => {
    const written = many(revoked, ROLLED_UP_MIN - 1);
    const { events, sharedIds } = rollUp(written);
    expect(events).to.deep.equal(written);
    expect(sharedIds).to.deep.equal(written.map(() => undefined));
  });

  it('name what all of them have in common', () => {
    const userId = randomUUID();
    const { events } = rollUp(many(() => revoked({ subject: { userId, sessionId: randomUUID() } })));
    expect(events.map(({ subject }) => subject)).to.deep.equal([{ userId }]);
  });

  it('do not mix actors, reasons, networks, initiators and types', () => {
    const half = ROLLED_UP_MIN - 1;
    const token = (): NewSecurityEvent => ({
      ...{ type: 'token-revoked', subject: { tokenId: randomUUID() }, details: {} },
      ...{ actor: 'olga', reason: 'leak', network: '' },
    });
    const others = [
      () => revoked({ actor: 'eve' }),
      () => revoked({ reason: 'drill' }),
      () => revoked({ network: '192.0.2.1' }),
      () => revoked({ details: { initiator: 'user' } }),
      token,
    ];
    for (const other of others) {
      const written = [...many(revoked, half), ...many(other, half)];
      expect(rollUp(written).events).to.have.length(written.length);
    }
  });

  it('leave the events of other changes alone', () => {
    const other = (): NewSecurityEvent => ({
      ...{ type: 'client-revoked', subject: { clientId: 'c' }, details: {} },
      ...{ actor: 'olga', reason: 'leak', network: '' },
    });
    const { events, sharedIds } = rollUp([...many(revoked), ...many(other)]);
    expect(events).to.have.length(1 + ROLLED_UP_MIN);
    expect(sharedIds.slice(ROLLED_UP_MIN)).to.deep.equal(many(other).map(() => undefined));
  });
});
