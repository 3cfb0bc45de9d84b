/** Reports over a real nats-server into a real database: accepted senders, duplicates, and permissions at the broker. */

import { generateKeyPairSync, randomBytes, randomUUID } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';
import { systemClock } from '@portcullis/guard/clock';
import {
  BROADCAST_SUBJECT,
  createReportSender,
  REPORT_SUBJECT,
  REPORT_TYPE,
  REPORTS_WAITING_MAX,
  ReportCollector,
  startReporting,
} from '@portcullis/guard/internal';
import { expect } from 'chai';
import { CompactSign } from 'jose';
import { type NatsConnection, StringCodec } from 'nats';
import { Report } from '../../../../proto/gen/portcullis/security/v1/report.js';
import {
  type ReportReceiver,
  type ReportReceiverDeps,
  receiveReports,
} from '../../../../services/auth/adapters/report-receiver.js';
import type { ServiceReport } from '../../../../services/auth/records/service-reports.js';
import { type PrivateNats, privateNats } from '../../../support/nats.js';
import { type FreshDatabase, freshDatabase } from '../../../support/postgres.js';
import { until } from '../../../support/waiting.js';
import { type AuthInstance, addClient, ISSUER, openAuth, type TestClient } from '../instance.js';

describe('reports of services', () => {
  let nats: PrivateNats;
  let fresh: FreshDatabase;
  let auth: AuthInstance;
  let payment: TestClient;
  let taken: ServiceReport[];
  const open: { close(): Promise<void> }[] = [];

  beforeEach(async () => {
    [nats, fresh] = await Promise.all([privateNats(), freshDatabase()]);
    auth = await openAuth(fresh.url);
    payment = await addClient(auth, { clientId: 'payment' });
    taken = [];
  });

  afterEach(async () => {
    for (const one of open.splice(0)) await one.close();
    await auth.close();
    await Promise.all([nats.stop(), fresh.drop()]);
  });

  function receive(over: Partial<ReportReceiverDeps> = {}): ReportReceiver {
    const receiver = receiveReports({
      url: nats.url('auth'),
      issuer: ISSUER,
      findClient: (clientId) => auth.store.transaction((tx) => tx.clients.find(clientId)),
      record: async (report) => {
        taken.push(report);
        await auth.events.recordReport(report);
      },
      onForged: () => undefined,
      wallMs: () => Date.now(),
      ...over,
    });
    open.push(receiver);
    return receiver;
  }

  const message = (over: Partial<Report> = {}): Report => ({
    ...Report.fromPartial({}),
    reportId: randomBytes(16),
    service: 'payment',
    instance: Buffer.alloc(16, 7),
    beginTime: new Date(),
    endTime: new Date(),
    refused: [{ reason: 'TOKEN_INVALID', address: '198.51.100.9', caller: undefined, calls: 3n }],
    ...over,
  });
  const sign = (
    report: Report,
    key: TestClient['privateKey'] = payment.privateKey,
    header: { alg?: string; kid?: string; typ?: string } = {},
  ): Promise<string> =>
    new CompactSign(Report.encode(report).finish())
      .setProtectedHeader({ alg: 'EdDSA', kid: payment.clientId, typ: REPORT_TYPE, ...header })
      .sign(key);
  const publish = async (connection: NatsConnection, text: string): Promise<string> => {
    const subject = `${REPORT_SUBJECT}.payment`;
    return await connection
      .request(subject, StringCodec().encode(text), { timeout: 1000 })
      .then(() => 'acknowledged', String);
  };
  const refusals = async () =>
    (await auth.events.list({ types: ['calls-refused'] }, { pageSize: 100, pageToken: '' })).events;

  it('are sent by a guard’s sender, recorded once, and acknowledged when they are recorded', async () => {
    receive();
    const sender = createReportSender({
      url: nats.url('payment'),
      service: 'payment',
      clientId: 'payment',
      clientKey: payment.privateKey,
    });
    open.push(sender);
    await until(() =>
      sender.send(message()).then(
        () => true,
        () => false,
      ),
    );
    const [event] = await refusals();
    expect(event).to.include({ source: 'payment', reason: 'TOKEN_INVALID', actor: 'payment' });
    expect(event?.details).to.deep.equal({ calls: 3, networks: ['198.51.100.9'] });
  });

  it('count once over two replicas, however often they arrive', async () => {
    const replicas = [receive(), receive()];
    const connection = await nats.connect('payment');
    await until(async () => (await publish(connection, await sign(message()))) === 'acknowledged');
    const before = (await refusals()).length;
    const texts = await Promise.all(Array.from({ length: 10 }, () => sign(message())));
    for (const text of [...texts, ...texts, ...texts]) {
      expect(await publish(connection, text)).to.equal('acknowledged');
    }
    expect(await refusals()).to.have.length(before + 10);
    // Each message was received by one of the replicas, and both received some.
    const counts = replicas.map((replica) => replica.counts().recorded);
    expect(counts.reduce((sum, count) => sum + count, 0))
      .to.equal(taken.length)
      .and.to.equal(before + 30);
    expect(Math.min(...counts)).to.be.greaterThan(0);
  });

  it('are accepted only from the client that signed them', async () => {
    const receiver = receive();
    const connection = await nats.connect('payment');
    await until(async () => (await publish(connection, await sign(message()))) === 'acknowledged');
    const [good] = taken;
    const stranger = generateKeyPairSync('ed25519').privateKey;
    await addClient(auth, { clientId: 'outsider', scopes: ['auth.introspect'] });
    const outsider = await addClient(auth, { clientId: 'not-an-instance', scopes: ['auth.introspect'] });
    const disabled = await addClient(auth, { clientId: 'disabled' });
    await auth.store.transaction((tx) => tx.clients.setDisabled('disabled', true));
    const hourMs = 3_600_000;
    const forgeries = [
      await sign(message(), stranger),
      await sign(message(), payment.privateKey, { kid: 'inventory' }),
      await sign(message(), payment.privateKey, { kid: "' OR '1'='1" }),
      await sign(message(), payment.privateKey, { typ: 'at+jwt' }),
      await sign(message(), outsider.privateKey, { kid: 'not-an-instance' }),
      await sign(message(), disabled.privateKey, { kid: 'disabled' }),
      await sign(message({ endTime: new Date(Date.now() - 2 * hourMs) })),
      await sign(message({ endTime: new Date(Date.now() + 2 * hourMs) })),
      await sign(message({ endTime: undefined })),
      await sign(message({ reportId: Buffer.alloc(3) })),
      (await sign(message())).replace(/\.[^.]+$/, '.'),
      'x',
      '',
      'e30.e30.e30',
      'x'.repeat(600_000),
    ];
    for (const forgery of forgeries) await publish(connection, forgery);
    expect(receiver.counts().forged).to.equal(forgeries.length);
    expect(taken).to.deep.equal([good]);
  });

  it('are rejected from a disabled client until it is enabled again', async () => {
    receive();
    const connection = await nats.connect('payment');
    const send = async () => publish(connection, await sign(message()));
    await until(async () => (await send()) === 'acknowledged');
    const before = taken.length;
    const request = { actor: 'admin', clientId: payment.clientId, requestId: '' };
    await auth.clients.disable({ ...request, reason: 'its key has leaked' });
    await send();
    expect(taken).to.have.length(before);
    await auth.clients.enable(request);
    await send();
    expect(taken).to.have.length(before + 1);
  });

  it('are sent again while they cannot be recorded', async () => {
    let isAway = true;
    let attempts = 0;
    receive({
      record: async (report) => {
        attempts += 1;
        if (isAway) throw new Error('the database is away');
        taken.push(report);
      },
    });
    const sender = createReportSender({
      url: nats.url('payment'),
      service: 'payment',
      clientId: 'payment',
      clientKey: payment.privateKey,
    });
    open.push(sender);
    const collector = new ReportCollector({
      service: 'payment',
      instance: randomBytes(16),
      clock: systemClock,
    });
    collector.recordForgedBroadcast();
    const reporting = startReporting({ collector, send: sender.send, intervalMs: 20 });
    open.push(reporting);
    await until(() => attempts > 1);
    expect(reporting.state()).to.deep.equal({ sent: 0, lost: 0, waiting: 1 });
    isAway = false;
    await until(() => reporting.state().sent === 1);
    expect(taken.map(({ forgedBroadcasts }) => forgedBroadcasts)).to.deep.equal([1]);
  });

  it('are cut to storable text, whatever a service sends', async () => {
    receive();
    const connection = await nats.connect('payment');
    const caller = {
      issuer: ISSUER,
      subject: `evil\0${'x'.repeat(1000)}`,
      clientId: `eyJhbGciOiJub25lIn0.${'a'.repeat(50)}.sig`,
      sessionId: '\u0007',
      delegated: false,
    };
    const text = await sign(
      message({ refused: [{ reason: 'A\nB', address: '2001:db8::1', caller, calls: 1n }] }),
    );
    await until(async () => (await publish(connection, text)) === 'acknowledged');
    const [row] = taken[0]?.refused ?? [];
    expect(row?.reason).to.equal('A B');
    expect(row?.network).to.equal('2001:db8:0:0');
    expect(row?.caller?.subject).to.have.length(255).and.to.not.include('\0');
    expect(row?.caller).to.include({ issuer: '', clientId: '[token]', sessionId: ' ' });
  });

  describe('at the broker', () => {
    it('may be sent by a service only under its own name', async () => {
      const subjects: string[] = [];
      const all = await nats.connect();
      all.subscribe(`${REPORT_SUBJECT}.*`, { callback: (_, { subject }) => subjects.push(subject) });
      await all.flush();
      const connection = await nats.connect('inventory');
      for (const name of ['inventory', 'payment', 'auth']) connection.publish(`${REPORT_SUBJECT}.${name}`);
      connection.publish(BROADCAST_SUBJECT);
      await connection.flush();
      await all.flush();
      expect(subjects).to.deep.equal([`${REPORT_SUBJECT}.inventory`]);
    });

    it('are received only by auth, which may only reply', async () => {
      const [own, other] = [await nats.connect('auth'), await nats.connect('inventory')];
      const errors: string[] = [];
      other.subscribe(`${REPORT_SUBJECT}.*`, { callback: (error) => errors.push(String(error)) });
      own.subscribe(`${REPORT_SUBJECT}.*`, { callback: (_, asked) => void asked.respond() });
      await own.flush();
      const asking = await nats.connect('payment');
      await asking.request(`${REPORT_SUBJECT}.payment`, undefined, { timeout: 1000 });
      expect(errors.join()).to.match(/permissions violation/i);
      own.publish(`${REPORT_SUBJECT}.payment`);
      own.publish('_INBOX.anybody');
      const violations: string[] = [];
      void (async () => {
        for await (const { data } of own.status()) violations.push(String(data));
      })();
      await own.flush();
      await sleep(50);
      expect(violations.join()).to.match(/permissions.violation/i);
    });
  });
});

describe('reporting', () => {
  it('keeps a bounded number of unacknowledged reports, and reports how many it has lost', async () => {
    const collector = new ReportCollector({ service: 'echo', instance: randomBytes(16), clock: systemClock });
    const sent: Report[] = [];
    let isAway = true;
    const reporting = startReporting({
      collector,
      intervalMs: 1,
      send: (report) => {
        if (isAway) return Promise.reject(new Error(randomUUID()));
        sent.push(report);
        return Promise.resolve();
      },
    });
    await until(() => {
      collector.recordForgedBroadcast();
      return reporting.state().lost >= 5;
    });
    const { lost, waiting } = reporting.state();
    expect(waiting).to.equal(REPORTS_WAITING_MAX);
    isAway = false;
    await until(() => reporting.state().waiting === 0);
    await reporting.close();
    const reportedLost = sent.reduce((sum, report) => sum + report.lostReports, 0n);
    expect(Number(reportedLost)).to.be.at.least(lost);
  });
});
