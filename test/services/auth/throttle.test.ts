/** Tests of the limit on guessing. */

import { expect } from 'chai';
import {
  createThrottle,
  FAILURES_PER_NAME_MAX,
  FAILURES_PER_PEER_MAX,
} from '../../../services/auth/throttle.js';
import { codeOf, errorOf } from './instance.js';

describe('the throttle', () => {
  it('limits failures against one name, from whatever peer', async () => {
    const throttle = createThrottle();
    for (let count = 0; count < FAILURES_PER_NAME_MAX; count += 1) {
      await throttle.attempt('alice', `192.0.2.${count}:1`);
    }
    const error = await errorOf(throttle.attempt('alice', '198.51.100.1:1'));
    expect(error.code).to.equal('RATE_LIMITED');
    expect(error.retryAfterMs).to.be.within(1, 60_000);
    await throttle.attempt('bob', '198.51.100.1:1');
  });

  it('limits failures from one peer, whatever the name and the port', async () => {
    const throttle = createThrottle();
    for (let count = 0; count < FAILURES_PER_PEER_MAX; count += 1) {
      await throttle.attempt(`user-${count}`, `192.0.2.1:${count}`);
    }
    expect(await codeOf(throttle.attempt('another', '192.0.2.1:9'))).to.equal('RATE_LIMITED');
    expect(await codeOf(throttle.attempt(undefined, '::ffff:192.0.2.1:9'))).to.equal('RATE_LIMITED');
    await throttle.attempt('another', '192.0.2.2:9');
  });

  it('takes a /64 of IPv6 for one peer', async () => {
    const throttle = createThrottle();
    for (let count = 0; count < FAILURES_PER_PEER_MAX; count += 1) {
      await throttle.attempt(undefined, `2001:db8:1:2::${count.toString(16)}:4000`);
    }
    expect(await codeOf(throttle.attempt(undefined, '[2001:db8:1:2:9:9:9:9]:4000'))).to.equal('RATE_LIMITED');
    await throttle.attempt(undefined, '2001:db8:1:3::1:4000');
  });

  it('forgets attempts that succeeded', async () => {
    const throttle = createThrottle();
    for (let count = 0; count < FAILURES_PER_PEER_MAX + 1; count += 1) {
      await (await throttle.attempt('alice', '192.0.2.1:1')).succeeded();
    }
  });
});
