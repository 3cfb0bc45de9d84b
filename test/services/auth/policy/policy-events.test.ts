/** Tests of the events that a change of the policy makes. */

import { randomUUID } from 'node:crypto';
import { expect } from 'chai';
import {
  EVENT_CHANGES_MAX,
  EVENTS_MAX,
  policyEvents,
} from '../../../../services/auth/policy/policy-events.js';

const COMMON = { subject: {}, actor: 'olga', reason: '', network: '' };

describe('the events of a change of the policy', () => {
  const changesOf = (length: number) =>
    Array.from({ length }, (_, at) => ({ kind: 'ADDED', audience: `a${at}` }) as const);

  it('are one that names nothing, if nothing has changed', () => {
    const eventId = randomUUID();
    expect(policyEvents({ ...COMMON, eventId }, [])).to.deep.equal([
      { ...COMMON, eventId, type: 'policy-changed', details: { changes: [], count: 0, first: 1 } },
    ]);
  });

  it('begin with the given id, are bounded, and tell the number of all changes', () => {
    const eventId = randomUUID();
    const count = EVENTS_MAX * EVENT_CHANGES_MAX + 1;
    const events = policyEvents({ ...COMMON, eventId }, changesOf(count));
    expect(events).to.have.length(EVENTS_MAX);
    expect(events.map((event) => event.eventId).filter((id) => id !== undefined)).to.deep.equal([eventId]);
    expect(new Set(events.map(({ details }) => details.count))).to.deep.equal(new Set([count]));
    expect(policyEvents({ ...COMMON, eventId }, changesOf(EVENT_CHANGES_MAX))).to.have.length(1);
  });
});
