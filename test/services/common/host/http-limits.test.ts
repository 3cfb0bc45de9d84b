/** What an HTTP port counts by network: an IPv4 address, or a /64 of IPv6. */

import { Socket } from 'node:net';
import { expect } from 'chai';
import { HttpConnections } from '../../../../services/common/host/http-connections.js';
import { HttpLimits } from '../../../../services/common/host/http-limits.js';
import { MovableClock } from '../../../support/clock.js';

/** A connection of a peer with this address. */
function connectionOf(remoteAddress: string): Socket {
  return Object.defineProperty(new Socket(), 'remoteAddress', { value: remoteAddress });
}

describe('limits of an HTTP port', () => {
  it('count the requests of a /64 of IPv6 together', () => {
    const limits = new HttpLimits(2, new MovableClock());
    const addresses = ['2001:db8:0:1::1', '2001:db8:0:1:ffff::2', '2001:db8:0:1::3', '2001:db8:0:2::1'];
    expect(addresses.map((address) => limits.allows(address))).to.deep.equal([true, true, false, true]);
    expect(limits.refused.requests_per_address).to.equal(1);
  });

  it('count an IPv4 address once, however it is written', () => {
    const limits = new HttpLimits(1, new MovableClock());
    expect([limits.allows('192.0.2.7'), limits.allows('::ffff:192.0.2.7')]).to.deep.equal([true, false]);
  });

  it('close the oldest connection of the /64 that has the most', () => {
    const connections = new HttpConnections(4);
    const single = ['192.0.2.1', '192.0.2.2'].map(connectionOf);
    const ofNetwork = ['2001:db8::1', '2001:db8::2', '2001:db8::3'].map(connectionOf);
    const evicted = [...single, ...ofNetwork].map((socket) =>
      connections.add(socket, socket.remoteAddress ?? ''),
    );
    expect(evicted).to.deep.equal([false, false, false, false, true]);
    expect(single.map(({ destroyed }) => destroyed)).to.deep.equal([false, false]);
    expect(ofNetwork.map(({ destroyed }) => destroyed)).to.deep.equal([true, false, false]);
    expect(connections.evicted).to.equal(1);
  });
});
