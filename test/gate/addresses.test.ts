/** Addresses as flags and files have them. */
import { expect } from 'chai';
import { formatAddress, parseAddress } from '../../gate/src/addresses.js';

describe('parseAddress', () => {
  it('reads hosts with ports, IPv6 in brackets, and paths of unix sockets', () => {
    expect(parseAddress('127.0.0.1:50051')).to.deep.equal({ kind: 'tcp', host: '127.0.0.1', port: 50051 });
    expect(parseAddress('greeter.svc:443')).to.deep.equal({ kind: 'tcp', host: 'greeter.svc', port: 443 });
    expect(parseAddress('[::1]:0')).to.deep.equal({ kind: 'tcp', host: '::1', port: 0 });
    expect(parseAddress('unix:/run/greeter.sock')).to.deep.equal({ kind: 'unix', path: '/run/greeter.sock' });
    expect(parseAddress('unix:///run/g.sock')).to.deep.equal({ kind: 'unix', path: '/run/g.sock' });
    expect(parseAddress('unix:g.sock')).to.deep.equal({ kind: 'unix', path: 'g.sock' });
  });

  it('rejects what is neither', () => {
    const bad = ['', '50051', ':50051', 'host', 'host:', 'host:65536', 'host:-1', '::1:50051', '[host]:1'];
    for (const text of [
      ...bad,
      'http://host:1',
      'ho st:1',
      'unix:',
      'unix:/a\0b',
      `unix:/${'a'.repeat(107)}`,
    ]) {
      expect(parseAddress(text), text).to.have.property('problem');
    }
  });
});

describe('formatAddress', () => {
  it('writes what parseAddress reads', () => {
    for (const text of ['127.0.0.1:50051', '[::1]:443', 'unix:/run/greeter.sock']) {
      const address = parseAddress(text);
      if ('problem' in address) throw new Error(address.problem);
      expect(formatAddress(address)).to.equal(text);
    }
  });
});
