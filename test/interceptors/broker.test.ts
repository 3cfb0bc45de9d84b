/** How the address of a broker is read. */

import { expect } from 'chai';
import { brokerConnection } from '../../interceptors/index.js';

describe('the connection to the broker', () => {
  it('is made to every address in the list, with the user and password of the first', () => {
    const options = brokerConnection('nats://us%40er:p%2Fw@one:4222, nats://two:4223', 'test');
    expect(options).to.deep.include({ servers: ['one:4222', 'two:4223'], user: 'us@er', pass: 'p/w' });
    expect(options).to.not.have.property('tls');
  });

  it('names no user when the address has none', () => {
    expect(brokerConnection('nats://one:4222', 'test')).to.not.have.any.keys('user', 'pass');
  });

  it('uses TLS when an address says so', () => {
    expect(brokerConnection('tls://one:4222', 'test')).to.deep.include({ servers: ['one:4222'], tls: {} });
  });

  it('is made again for ever, and a dead one is noticed within seconds', () => {
    const { maxReconnectAttempts, pingInterval, maxPingOut, ignoreAuthErrorAbort } = brokerConnection(
      'nats://one:4222',
      'test',
    );
    expect({ maxReconnectAttempts, ignoreAuthErrorAbort }).to.deep.equal({
      maxReconnectAttempts: -1,
      ignoreAuthErrorAbort: true,
    });
    expect((pingInterval ?? Number.NaN) * (maxPingOut ?? Number.NaN)).to.be.at.most(2000);
  });
});
