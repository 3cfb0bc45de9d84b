/** What a guard reports to its issuer, and where it keeps nothing because it cannot report. */

import { generateKeyPairSync } from 'node:crypto';
import { credentials } from '@grpc/grpc-js';
import { expect } from 'chai';
import type { GuardOptions } from '../../../interceptors/src/index.js';
import { GuardReports } from '../../../interceptors/src/server/guard-reports.js';
import type { Report } from '../../../proto/gen/portcullis/security/v1/report.js';
import { AUDIENCE, ISSUER, SetClock, verifiedToken } from '../tokens-support.js';

describe('the reports of a guard', () => {
  const source = {
    sync: () => Promise.reject(new Error('no sync')),
    pull: () => {
      throw new Error('no pull');
    },
  };
  const remote = {
    address: '127.0.0.1:1',
    credentials: credentials.createInsecure(),
    clientId: 'inventory',
    clientKey: generateKeyPairSync('ed25519').privateKey,
  };

  const silent = () => undefined;
  const SILENT = { info: silent, warn: silent, error: silent };
  const create = (over: Pick<GuardOptions, 'auth' | 'nats'>) =>
    new GuardReports(
      { issuer: ISSUER, audience: AUDIENCE, log: SILENT, ...over },
      Buffer.alloc(16, 7),
      new SetClock(),
    );

  it('go to its own issuer, with callers, refusals, forged broadcasts and connections', async () => {
    const sent: Report[] = [];
    const reports = create({ auth: { source, report: async (report) => void sent.push(report) } });
    reports.recordConnection('none');
    reports.recordConnection('remote');
    reports.recordAdmitted(verifiedToken(), { address: '192.0.2.1' });
    reports.recordRefused('SCOPE_MISSING', verifiedToken({ subject: 'user-2' }), { address: '192.0.2.9' });
    reports.recordForgedBroadcast();
    expect([reports.state(), reports.brokerState()]).to.deep.equal([
      { sent: 0, lost: 0, waiting: 0 },
      undefined,
    ]);
    await reports.close();
    expect(reports.state()).to.deep.equal({ sent: 1, lost: 0, waiting: 0 });
    const [report] = sent;
    expect(report).to.deep.include({
      service: AUDIENCE,
      instance: Buffer.alloc(16, 7),
      forgedBroadcasts: 1n,
    });
    expect(report?.admitted).to.have.length(1);
    expect(report?.admitted[0]?.addresses).to.deep.equal(['192.0.2.1']);
    expect(report?.refused).to.have.length(1);
    expect(report?.refused[0]).to.include({ reason: 'SCOPE_MISSING', address: '192.0.2.9' });
    expect(report?.refused[0]?.caller).to.include({ subject: 'user-2' });
    expect(report).to.include({ plaintext: true, remotePlaintext: true });
  });

  it('go over the broker where the issuer is another process', async () => {
    const reports = create({ auth: remote, nats: { url: 'nats://127.0.0.1:1' } });
    expect(reports.brokerState()).to.equal('connecting');
    expect(reports.state()).to.deep.equal({ sent: 0, lost: 0, waiting: 0 });
    await reports.close();
  });

  it('use no memory where nothing can be sent', async () => {
    for (const auth of [remote, { source }]) {
      const reports = create({ auth });
      const token = verifiedToken();
      const call = {
        get address(): string {
          throw new Error('the address was read');
        },
      };
      reports.recordAdmitted(token, call);
      reports.recordRefused('TOKEN_REVOKED', token, call);
      reports.recordForgedBroadcast();
      expect(token.calls).to.equal(0);
      expect([reports.state(), reports.brokerState()]).to.deep.equal([
        { sent: 0, lost: 0, waiting: 0 },
        undefined,
      ]);
      await reports.close();
    }
  });
});
