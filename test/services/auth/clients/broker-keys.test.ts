/** The public nkeys of services: what nats.js makes is accepted, and nothing else. */

import { expect } from 'chai';
import { nkeys } from 'nats';
import { parseBrokerKey } from '../../../../services/auth/clients/broker-keys.js';

describe('the public key of a service at the broker', () => {
  it('is what nats.js makes for a user, or nothing', () => {
    for (let round = 0; round < 50; round += 1) {
      const key = nkeys.createUser().getPublicKey();
      expect(parseBrokerKey('broker_public_key', key)).to.equal(key);
    }
    expect(parseBrokerKey('broker_public_key', '')).to.equal(undefined);
    expect(parseBrokerKey('broker_public_key', undefined)).to.equal(undefined);
  });

  it('is refused when a character is wrong, or it is another kind of key', () => {
    const user = nkeys.createUser();
    const key = user.getPublicKey();
    const mistyped = `${key.slice(0, 20)}${key[20] === 'A' ? 'B' : 'A'}${key.slice(21)}`;
    const seed = new TextDecoder().decode(user.getSeed());
    for (const text of [
      mistyped,
      seed,
      nkeys.createAccount().getPublicKey(),
      key.toLowerCase(),
      key.slice(1),
      `${key}A`,
      // The same number.
      `A${key}`,
      `${key}\n`,
    ]) {
      expect(() => parseBrokerKey('broker_public_key', text)).to.throw('must be the public nkey of a user');
    }
  });
});
