/** The networks in which peers are counted. */

import { expect } from 'chai';
import { networkOf, networkOfPeer } from '../../../interceptors/src/wire/networks.js';

describe('the network of a peer', () => {
  it('is an IPv4 address, also when it is mapped to IPv6', () => {
    expect(networkOf('192.0.2.7')).to.equal('192.0.2.7');
    expect(networkOf('::ffff:192.0.2.7')).to.equal('192.0.2.7');
    expect(networkOfPeer('192.0.2.7:50000')).to.equal('192.0.2.7');
  });

  it('is the /64 of an IPv6 address, in one spelling', () => {
    for (const address of ['2001:db8:0:1::1', '2001:db8:0:1:ffff:ffff:ffff:ffff', '2001:db8:0:1:2:3:4::']) {
      expect(networkOf(address)).to.equal('2001:db8:0:1');
    }
    expect(networkOf('2001:db8::1')).to.equal('2001:db8:0:0');
    expect(networkOf('::1')).to.equal('0:0:0:0');
    expect(networkOfPeer('2001:db8:0:1::1:50000')).to.equal('2001:db8:0:1');
  });
});
