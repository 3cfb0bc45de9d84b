/** The security reports of a guard: callers, addresses and refusals, within limits. */

import { randomBytes, randomUUID } from 'node:crypto';
import { Client, credentials, Metadata } from '@grpc/grpc-js';
import { expect } from 'chai';
import { systemClock } from '../../../interceptors/src/clock.js';
import type { SendReport } from '../../../interceptors/src/index.js';
import {
  ADDRESSES_MAX,
  PRINCIPALS_MAX,
  REFUSED_ROWS_MAX,
  ReportCollector,
} from '../../../interceptors/src/reports/security-reports.js';
import { VerifiedToken } from '../../../interceptors/src/revocation/verified-tokens.js';
import { readClaims } from '../../../interceptors/src/token/claims.js';
import { parseJsonObject } from '../../../interceptors/src/token/strict-json.js';
import type { Report } from '../../../proto/gen/portcullis/security/v1/report.js';
import { bearer, callEcho, type Echo, startEcho } from '../../support/echo.js';
import { AUDIENCE, ISSUER, TestIssuer } from '../../support/issuer.js';
import { outcomeOf } from '../../support/outcomes.js';
import { until } from '../../support/waiting.js';

/** Calls the server, and ignores the result. */
async function call(client: Client, metadata: Metadata, method = 'Unary'): Promise<void> {
  await outcomeOf(callEcho(client, metadata, { method }));
}

describe('security reports', () => {
  let issuer: TestIssuer;
  let collector: ReportCollector;
  const instance = randomBytes(16);

  beforeEach(async () => {
    issuer = await TestIssuer.create();
    collector = new ReportCollector({ service: 'echo', instance, clock: systemClock });
  });

  const tokenOf = (over: Record<string, unknown> = {}): VerifiedToken => {
    const claims = issuer.claims(over);
    const read = readClaims(parseJsonObject(Buffer.from(JSON.stringify(claims))) ?? {}, 'key', {
      issuer: ISSUER,
      audience: AUDIENCE,
      nowSeconds: Date.now() / 1000,
    });
    if ('fault' in read) throw new Error(read.fault);
    return new VerifiedToken(randomUUID(), read);
  };

  it('count the calls of each principal and session over all of its tokens, starting from zero after each report', () => {
    const [sub, sid] = [randomUUID(), randomUUID()];
    const tokens = [tokenOf({ sub, sid }), tokenOf({ sub, sid }), tokenOf()];
    for (const [index, token] of tokens.entries()) {
      for (let count = 0; count <= index; count += 1) collector.recordAdmitted(token, `192.0.2.${index}`);
    }
    const report = collector.collect(0);
    expect(report?.instance).to.deep.equal(instance);
    const [first, second] = report?.admitted ?? [];
    expect(first).to.deep.include({ calls: 3n, addresses: ['192.0.2.0', '192.0.2.1'] });
    expect(first?.caller).to.include({
      issuer: ISSUER,
      subject: sub,
      sessionId: sid,
      clientId: 'direct',
      delegated: false,
    });
    expect(second).to.deep.include({ calls: 3n, addresses: ['192.0.2.2'] });
    expect(collector.collect(0)).to.equal(undefined);
    const [token] = tokens;
    if (token !== undefined) collector.recordAdmitted(token, '192.0.2.0');
    expect(collector.collect(0)?.admitted).to.have.length(1);
  });

  it('list every address from which a token is used, up to the limit', () => {
    const token = tokenOf();
    for (let round = 0; round < 3; round += 1) {
      for (let index = 0; index < 5; index += 1) collector.recordAdmitted(token, `192.0.2.${index}`);
    }
    expect(collector.collect(0)?.admitted[0]?.addresses).to.have.members(
      Array.from({ length: 5 }, (_, index) => `192.0.2.${index}`),
    );
    for (let index = 0; index < 100; index += 1) collector.recordAdmitted(token, `192.0.2.${index}`);
    expect(collector.collect(0)?.admitted[0]?.addresses).to.have.length(ADDRESSES_MAX);
  });

  it('stay within their limits, and count what was left out', () => {
    for (let index = 0; index < PRINCIPALS_MAX + 5; index += 1)
      collector.recordAdmitted(tokenOf(), '192.0.2.1');
    const seen = tokenOf();
    for (const address of ['192.0.2.1', '192.0.2.2']) collector.recordAdmitted(seen, address);
    for (let index = 0; index < REFUSED_ROWS_MAX + 7; index += 1) {
      collector.recordRefused('TOKEN_INVALID', undefined, `10.0.${index >> 8}.${index & 255}`);
    }
    collector.recordRefused('TOKEN_INVALID', undefined, '10.0.0.0');
    const report = collector.collect(3);
    expect(report?.admitted).to.have.length(PRINCIPALS_MAX);
    expect(report?.principalsLeftOut).to.equal(6n);
    // A principal with several addresses is never left out.
    expect(report?.admitted[0]?.caller?.subject).to.equal(seen.claims.subject);
    expect(report?.refused).to.have.length(REFUSED_ROWS_MAX);
    expect(report?.refusedLeftOut).to.equal(7n);
    expect(report?.refused[0]?.calls).to.equal(2n);
    expect(report?.lostReports).to.equal(3n);
  });

  it('of a running guard contain admitted and refused callers, reasons, addresses and plaintext use', async () => {
    const reports: Report[] = [];
    const report: SendReport = (one) => {
      reports.push(one);
      return Promise.resolve();
    };
    const echo: Echo = await startEcho(issuer, { auth: { source: issuer.source, report } });
    const other = new Client(`127.0.0.1:${echo.port}`, credentials.createInsecure());
    try {
      await echo.guard.ready;
      const claims = issuer.claims();
      const token = await issuer.sign(claims);
      for (const client of [echo.client, other, echo.client]) await call(client, bearer(token));
      await call(echo.client, bearer(token), 'Operators');
      await call(echo.client, bearer(`${token}x`));
      await call(echo.client, new Metadata());
      issuer.revokeSession(String(claims['sid']));
      echo.guard.syncNow();
      await until(() => echo.guard.state().applied > 0n);
      await call(echo.client, bearer(token));
      // A guard that closes sends what it has counted. Under load there may be reports before the last one.
      await echo.guard.close();
      for (const one of reports) {
        expect(one.service).to.equal(AUDIENCE);
        expect(one.plaintext).to.equal(true);
        expect(one.remotePlaintext).to.equal(false);
        for (const { addresses } of one.admitted) expect(addresses).to.deep.equal(['127.0.0.1']);
      }
      const admitted = reports.flatMap((one) => one.admitted.map(({ calls }) => calls));
      expect(admitted.reduce((sum, calls) => sum + calls, 0n)).to.equal(3n);
      const refused = reports.flatMap((one) =>
        one.refused.map(({ reason, calls, address, caller }) => [reason, calls, address, caller?.sessionId]),
      );
      expect(refused).to.have.deep.members([
        ['ROLE_MISSING', 1n, '127.0.0.1', claims['sid']],
        ['TOKEN_INVALID', 1n, '127.0.0.1', undefined],
        ['TOKEN_MISSING', 1n, '127.0.0.1', undefined],
        ['TOKEN_REVOKED', 1n, '127.0.0.1', claims['sid']],
      ]);
      expect(
        JSON.stringify(reports, (_, value) => (typeof value === 'bigint' ? String(value) : value)),
      ).to.not.include(token.slice(0, 20));
      expect(echo.guard.state().reports).to.deep.equal({ sent: reports.length, lost: 0, waiting: 0 });
    } finally {
      other.close();
      await echo.stop();
    }
  });
});
