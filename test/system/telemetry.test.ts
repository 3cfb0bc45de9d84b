/** OpenTelemetry in the services: one trace from a caller through payment, the token exchange and inventory. */

import { randomUUID } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { SpanKind } from '@opentelemetry/api';
import { expect } from 'chai';
import { ask, tokenMetadata } from '../../scripts/system/calls.js';
import { makeTemporaryFolder, type TemporaryFolder } from '../../scripts/system/temporary-folder.js';
import { PROJECT_FOLDER } from '../support/project-copy.js';
import { clientsOf, type SystemClients, startTestSystem, type TestSystem } from '../support/system.js';
import { until } from '../support/waiting.js';

const START_TIMEOUT_MS = 120_000;
const TRACE = '4bf92f3577b34da6a3ce929d0e0e4736';

/** A span, as `record-spans.mjs` writes it. */
interface Recorded {
  readonly traceId: string;
  readonly spanId: string;
  readonly parent?: string;
  readonly name: string;
  readonly kind: SpanKind;
  readonly attributes: Readonly<Record<string, unknown>>;
}

describe('services with OpenTelemetry', function () {
  this.timeout(START_TIMEOUT_MS);
  let folder: TemporaryFolder;
  let system: TestSystem;
  let clients: SystemClients;

  before(async () => {
    folder = await makeTemporaryFolder();
    const recorder = pathToFileURL(join(PROJECT_FOLDER, 'test', 'support', 'record-spans.mjs'));
    recorder.search = encodeURIComponent(join(folder.path, 'spans'));
    system = await startTestSystem({
      environment: { PORTCULLIS_OPENTELEMETRY: 'on' },
      nodeArguments: [`--import=${recorder.href}`],
    });
    clients = clientsOf(system);
  });
  after(async () => {
    clients?.close();
    await system?.remove();
    await folder.remove();
  });

  async function spansOf(traceId: string): Promise<Recorded[]> {
    const text = await readFile(join(folder.path, 'spans'), 'utf8');
    const all = text
      .split('\n')
      .filter((line) => line !== '')
      .map((line) => JSON.parse(line) as Recorded);
    return all.filter((span) => span.traceId === traceId);
  }

  it('continue the trace of their caller, with the exchange of its token, and name no user and no token', async () => {
    const { accessToken: token } = await clients.logIn('alice');
    const metadata = tokenMetadata({ token });
    metadata.set('traceparent', `00-${TRACE}-00f067aa0ba902b7-01`);
    const request = {
      accountId: system.accounts?.alice ?? '',
      lines: [{ sku: 'LAMP-01', quantity: 1n }],
      requestId: randomUUID(),
    };
    await new Promise<void>((resolve, reject) => {
      clients.payment.checkout(request, metadata, (error) => (error === null ? resolve() : reject(error)));
    });
    const named = (spans: readonly Recorded[], name: string, kind: SpanKind): Recorded | undefined =>
      spans.find((span) => span.name.endsWith(name) && span.kind === kind);
    await until(async () => named(await spansOf(TRACE), '/Checkout', SpanKind.SERVER) !== undefined);
    const spans = await spansOf(TRACE);
    const checkout = named(spans, '/Checkout', SpanKind.SERVER);
    expect(checkout?.parent).to.equal('00f067aa0ba902b7');
    for (const name of ['/ExchangeToken', '/ReserveStock', '/SettleReservation']) {
      const [sent, received] = [named(spans, name, SpanKind.CLIENT), named(spans, name, SpanKind.SERVER)];
      expect(sent?.parent, name).to.equal(checkout?.spanId);
      expect(received?.parent, name).to.equal(sent?.spanId);
      expect(received?.attributes, name).to.include({ 'portcullis.client.id': 'payment' });
    }
    const text = await readFile(join(folder.path, 'spans'), 'utf8');
    expect(text).to.not.include(token).and.not.include('alice');
  });

  it('report as before without a caller that traces', async () => {
    const { accessToken: token } = await clients.logIn('alice');
    const page = { pageSize: 1, pageToken: '', filter: '' };
    await ask(clients.inventory[0].listItems.bind(clients.inventory[0]), page, { token });
    const metrics = await (await fetch(`http://${system.inventory[0].opsAddress}/metrics`)).text();
    expect(metrics).to.match(/portcullis_decisions_total\{[^}]*ListItems[^}]*outcome="ADMITTED"[^}]*\} 1/);
  });
});
