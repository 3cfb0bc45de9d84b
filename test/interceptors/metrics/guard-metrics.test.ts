/** The metrics of a guard over real sockets: they count decisions, and name no caller. */

import { Metadata } from '@grpc/grpc-js';
import { createGuardMetrics } from '@portcullis/guard/metrics';
import { expect } from 'chai';
import { bearer, callEcho, type Echo, startEcho } from '../../support/echo.js';
import { TestIssuer } from '../../support/issuer.js';
import { outcomeOf } from '../../support/outcomes.js';
import { until } from '../../support/waiting.js';

/** Calls the server, and ignores the result. */
async function call(echo: Echo, metadata: Metadata): Promise<void> {
  await outcomeOf(callEcho(echo.client, metadata));
}

describe('metrics of a guard', () => {
  it('count decisions by method and reason, report the state of the list, and name no caller', async () => {
    const issuer = await TestIssuer.create();
    const metrics = createGuardMetrics();
    const echo = await startEcho(issuer, { observer: metrics.observer, listEntriesMax: 1000 });
    try {
      metrics.attach(echo.guard);
      await echo.guard.ready;
      const claims = issuer.claims();
      const token = await issuer.sign(claims);
      await call(echo, bearer(token));
      await call(echo, bearer(token));
      await call(echo, new Metadata());
      await call(echo, bearer(`${token}x`));
      issuer.revokeSession(String(claims['sid']));
      echo.guard.syncNow();
      await until(() => echo.guard.state().applied > 0n);
      await call(echo, bearer(token));
      metrics.observer.fenceRefused?.('TOKEN_REVOKED');
      const text = await metrics.registry.metrics();
      expect(text).to.include('portcullis_fence_refused_total{reason="TOKEN_REVOKED"} 1');
      const decision = (outcome: string, count: number): string =>
        `portcullis_decisions_total{grpc_method="/test.v1.EchoService/Unary",outcome="${outcome}"} ${count}`;
      expect(text).to.include(decision('ADMITTED', 2));
      expect(text).to.include(decision('TOKEN_MISSING', 1));
      expect(text).to.include(decision('TOKEN_INVALID', 1));
      expect(text).to.include(decision('TOKEN_REVOKED', 1));
      expect(text).to.include('portcullis_invalid_tokens_total{fault="form"} 1');
      expect(text).to.include('portcullis_revocation_entries 1');
      expect(text).to.include('portcullis_revocation_entries_max 1000');
      expect(text).to.include('portcullis_revocation_applied_sequence 1');
      expect(text).to.include('portcullis_revocation_current 1');
      const bounds = [...text.matchAll(/^portcullis_verify_seconds_bucket\{.*le="([^"]+)".*\}/gm)];
      expect(bounds.map(([, bound]) => bound)).to.deep.equal(
        '0.0001 0.00025 0.0005 0.001 0.0025 0.005 0.01 0.025 0.1 0.5 2 +Inf'.split(' '),
      );
      for (const secret of [claims['sub'], claims['sid'], claims['jti'], token]) {
        expect(text).to.not.include(String(secret));
      }
    } finally {
      await echo.stop();
    }
  });
});
