/** What a guard keeps for its security reports. The heap is read, so nothing else may use it meanwhile. */

import { queryObjects } from 'node:v8';
import type { Client, Metadata } from '@grpc/grpc-js';
import { expect } from 'chai';
import { VerifiedToken } from '../../../interceptors/src/revocation/verified-tokens.js';
import { MovableClock } from '../../support/clock.js';
import { bearer, callEcho, startEcho } from '../../support/echo.js';
import { TestIssuer } from '../../support/issuer.js';
import { outcomeOf } from '../../support/outcomes.js';
import { until } from '../../support/waiting.js';

/** Calls the server, and ignores the result. */
async function call(client: Client, metadata: Metadata): Promise<void> {
  await outcomeOf(callEcho(client, metadata));
}

/** Longer than the lifetime of the test issuer's tokens, including the skew. */
const LIFETIME_AND_SKEW_MS = 310_000;

describe('security reports in memory', () => {
  it('are not collected where they cannot be sent, so that an expired token leaves no memory behind', async () => {
    const issuer = await TestIssuer.create();
    const clock = new MovableClock();
    const echo = await startEcho(issuer, { clock });
    try {
      await echo.guard.ready;
      const alive = () => queryObjects(VerifiedToken, { format: 'count' });
      const before = alive();
      for (let count = 0; count < 20; count += 1) await call(echo.client, bearer(await issuer.token()));
      expect(alive() - before).to.be.above(0);
      clock.pass(LIFETIME_AND_SKEW_MS);
      await until(() => echo.guard.state().tokens === 0);
      expect(alive()).to.be.at.most(before);
    } finally {
      await echo.stop();
    }
  });
});
