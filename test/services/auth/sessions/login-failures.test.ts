/** Tests of the records of failed authentications. */

import { systemClock } from '@portcullis/guard/clock';
import { expect } from 'chai';
import { createLoginFailures } from '../../../../services/auth/sessions/login-failures.js';
import { ClientFault } from '../../../../services/auth/tokens/client-faults.js';

const PEER = '192.0.2.1:4000';
const NETWORK = '192.0.2.1';

describe('records of failed authentications', () => {
  const open = (key: Buffer = Buffer.alloc(32, 1)) => {
    const noted: Record<string, unknown>[] = [];
    const sampled: [string, Record<string, unknown>][] = [];
    const lines: [object, string][] = [];
    const failures = createLoginFailures({
      events: {
        note: (event) => noted.push({ ...event }),
        noteSampled: (same, event) => sampled.push([same, { ...event }]),
      },
      key,
      log: { warn: (fields, message) => lines.push([fields, message]) },
      clock: { ...systemClock, monotonicMs: () => 0 },
    });
    return { failures, noted, sampled, lines };
  };
  const failed = (name: string, key?: Buffer) => {
    const { failures, noted } = open(key);
    failures.failed({ what: 'login', name, peer: PEER });
    return noted[0]?.['subject'];
  };

  it('name the user where there is one, and never the typed text', () => {
    const { failures, noted } = open();
    const failure = { what: 'change of password', name: 'alice', peer: PEER } as const;
    failures.failed({ ...failure, userId: 'id of alice' });
    expect(noted).to.deep.equal([
      {
        type: 'login-failed',
        subject: { userId: 'id of alice' },
        actor: 'anybody',
        reason: 'LOGIN_FAILED',
        network: NETWORK,
        details: { what: 'change of password' },
      },
    ]);
  });

  it('hash an unknown name under the key, equally for all spellings of one name', () => {
    const subject = failed('nobody');
    expect(subject).to.have.all.keys('nameHash');
    expect(subject).to.have.property('nameHash').that.has.length(22);
    expect(failed('NOBODY')).to.deep.equal(subject);
    expect(failed('νικος')).to.deep.equal(failed('νικοσ'));
    expect(failed('somebody')).to.not.deep.equal(subject);
    expect(failed('nobody', Buffer.alloc(32, 2))).to.not.deep.equal(subject);
  });

  it('hash what cannot be a name by its first characters', () => {
    const password = 'x'.repeat(256);
    expect(failed(`${password}a`)).to.deep.equal(failed(`${password}b`));
    expect(failed(`${password.slice(1)}a`)).to.not.deep.equal(failed(`${password.slice(1)}b`));
  });

  it('sample attempts beyond the limit by subject and network', () => {
    const { failures, sampled } = open();
    const failure = { what: 'login', name: 'alice', userId: 'id of alice' } as const;
    failures.limited({ ...failure, peer: PEER });
    failures.limited({ ...failure, peer: '192.0.2.2:4000' });
    failures.limited({ ...failure, userId: 'id of bob', peer: PEER });
    expect(sampled[0]?.[1]).to.deep.equal({
      type: 'login-limited',
      subject: { userId: 'id of alice' },
      actor: 'anybody',
      reason: 'RATE_LIMITED',
      network: NETWORK,
      details: { what: 'login' },
    });
    expect(new Set(sampled.map(([same]) => same)).size).to.equal(3);
  });

  it('sample refused clients by client, network and fault, with a line in the log', () => {
    const { failures, sampled, lines } = open();
    const late = new ClientFault('exp', 7);
    const refusals = [
      { clientId: 'shop', peer: PEER, fault: late },
      { clientId: 'shop', peer: '192.0.2.2:4000', fault: late },
      { clientId: 'payment', peer: PEER, fault: late },
      { clientId: 'shop', peer: PEER, fault: new ClientFault('unknown-client') },
    ];
    for (const refusal of refusals) failures.clientRefused(refusal);
    expect(sampled[0]?.[1]).to.deep.equal({
      type: 'client-authentication-failed',
      subject: { clientId: 'shop' },
      actor: 'anybody',
      reason: 'CLIENT_AUTHENTICATION_FAILED',
      network: NETWORK,
      details: { fault: late.fault, seconds: 7 },
    });
    expect(sampled[3]?.[1]).to.have.property('details').that.does.not.have.property('seconds');
    expect(new Set(sampled.map(([same]) => same)).size).to.equal(refusals.length);
    expect(lines).to.deep.equal([
      [
        { event: 'client_refused', clientId: 'shop', network: NETWORK, fault: late.fault, seconds: 7 },
        `refused a client: ${late.message}`,
      ],
    ]);
  });
});
