/** The whole system over TLS, with certificates on both sides of every connection. */

import { randomUUID, X509Certificate } from 'node:crypto';
import { copyFile, readFile, rename } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { connect as connectTls } from 'node:tls';
import { credentials } from '@grpc/grpc-js';
import { createServiceTokenSource } from '@portcullis/guard/client';
import { expect } from 'chai';
import { decodeJwt } from 'jose';
import { InventoryServiceClient } from '../../proto/gen/inventory/v1/inventory_service.js';
import { PaymentState } from '../../proto/gen/payment/v1/payment_service.js';
import { ask } from '../../scripts/system/calls.js';
import type { ServiceProcess } from '../../scripts/system/parts.js';
import { makeTemporaryFolder } from '../../scripts/system/temporary-folder.js';
import { type Authority, createAuthority, type Identity } from '../support/certificates.js';
import { outcomeOf } from '../support/outcomes.js';
import {
  clientsOf,
  LEASE_MS,
  type SystemClients,
  startTestSystem,
  type TestSystem,
} from '../support/system.js';
import { until } from '../support/waiting.js';

const START_TIMEOUT_MS = 120_000;
const SKU = 'MUG-03';

describe('the system over TLS', () => {
  let folder: Awaited<ReturnType<typeof makeTemporaryFolder>>;
  let authority: Authority;
  let files: Identity;
  let system: TestSystem;
  let clients: SystemClients;

  before(async function () {
    this.timeout(START_TIMEOUT_MS);
    folder = await makeTemporaryFolder();
    authority = await createAuthority(folder.path);
    files = { certFile: join(folder.path, 'tls.crt'), keyFile: join(folder.path, 'tls.key') };
    await put(await authority.issue());
    system = await startTestSystem({ tls: { ...files, caFile: authority.certFile } });
    clients = clientsOf(system);
  });
  after(async function () {
    this.timeout(START_TIMEOUT_MS);
    clients?.close();
    await system?.remove();
    await folder?.remove();
  });

  async function put(identity: Identity): Promise<void> {
    for (const file of ['certFile', 'keyFile'] as const) {
      await copyFile(identity[file], `${files[file]}.draft`);
      await rename(`${files[file]}.draft`, files[file]);
    }
  }

  async function buy(token: string): Promise<PaymentState | undefined> {
    const { payment } = clients;
    const request = {
      accountId: system.accounts?.alice ?? '',
      lines: [{ sku: SKU, quantity: 1n }],
      requestId: randomUUID(),
    };
    const answer = await ask(payment.checkout.bind(payment), request, { token });
    return answer.payment?.state;
  }

  it('completes a purchase, and a revocation reaches every instance', async () => {
    const { accessToken: token } = await clients.logIn('alice');
    expect(await buy(token)).to.equal(PaymentState.PAYMENT_STATE_CAPTURED);
    await ask(clients.auth.logout.bind(clients.auth), {}, { token });
    await sleep(LEASE_MS);
    for (const instance of clients.inventory) {
      const answer = ask(instance.getItem.bind(instance), { sku: SKU }, { token });
      expect(await outcomeOf(answer)).to.equal('UNAUTHENTICATED TOKEN_REVOKED');
    }
    expect(await outcomeOf(buy(token))).to.equal('UNAUTHENTICATED TOKEN_REVOKED');
    // Inventory and payment serve only when they have reached the broker.
    expect(system.nats?.url('inventory')).to.match(/^tls:/);
  });

  it('binds tokens to certificates: they are rejected with another certificate of the same authority', async () => {
    const { accessToken: alice } = await clients.logIn('alice');
    const bound = (token: string): unknown =>
      (decodeJwt(token)['cnf'] as Record<string, unknown>)['x5t#S256'];
    expect(bound(alice)).to.equal(await thumbprintOf(files));
    const [one] = system.inventory;
    const other = await authority.issue();
    const thief = new InventoryServiceClient(
      one.address,
      credentials.createSsl(
        await readFile(authority.certFile),
        await readFile(other.keyFile),
        await readFile(other.certFile),
      ),
    );
    const get = (client: InventoryServiceClient) =>
      outcomeOf(ask(client.getItem.bind(client), { sku: SKU }, { token: alice }));
    expect(await get(thief)).to.equal('UNAUTHENTICATED TOKEN_INVALID');
    expect(await get(clients.inventory[0])).to.equal('OK');
    expect(await get(thief)).to.equal('UNAUTHENTICATED TOKEN_INVALID');
    thief.close();
    // So are the services' own tokens, and those with which payment acts for alice.
    const payment = createServiceTokenSource({
      address: system.auth.address,
      credentials: system.credentials,
      clientId: 'payment',
      clientKey: await readFile(system.secrets.clientKeyFiles.payment, 'utf8'),
      issuer: system.issuer,
    });
    const own = await payment.get();
    expect(bound(own)).to.equal(await thumbprintOf(files));
    const request = { subjectToken: alice, audience: 'inventory', scopes: [] };
    const { auth } = clients;
    const { accessToken } = await ask(auth.exchangeToken.bind(auth), request, { token: own });
    expect(bound(accessToken)).to.equal(await thumbprintOf(files));
    payment.close();
  });

  it('rejects callers in plaintext or without a certificate', async () => {
    const [one] = system.inventory;
    const { accessToken: token } = await clients.logIn('alice');
    for (const creds of [credentials.createInsecure(), credentials.createSsl()]) {
      const client = new InventoryServiceClient(one.address, creds);
      const answer = ask(client.getItem.bind(client), { sku: SKU }, { token });
      expect(await outcomeOf(answer)).to.equal('UNAVAILABLE');
      client.close();
    }
  });

  it('loads new certificates on SIGHUP, and continues', async function () {
    this.timeout(START_TIMEOUT_MS);
    const { accessToken: token } = await clients.logIn('alice');
    const all = [system.auth, ...system.inventory, system.payment];
    const before = new Set(await Promise.all(all.map(serialOf)));
    expect(before.size).to.equal(1);
    await put(await authority.issue());
    for (const proc of all) proc.kill('SIGHUP');
    const isNew = async (proc: ServiceProcess): Promise<boolean> => !before.has(await serialOf(proc));
    await until(async () => (await Promise.all(all.map(isNew))).every(Boolean), { pollMs: 20 });
    expect(all.every((proc) => proc.isRunning())).to.equal(true);
    expect(await buy(token)).to.equal(PaymentState.PAYMENT_STATE_CAPTURED);
    // Their peers must connect again, with the new certificates.
    await system.inventory[0].restart();
    await system.auth.restart();
    await Promise.all(all.map((proc) => proc.ready()));
    expect(await buy((await clients.logIn('alice')).accessToken)).to.equal(
      PaymentState.PAYMENT_STATE_CAPTURED,
    );
  });
});

async function thumbprintOf({ certFile }: Identity): Promise<string> {
  const { fingerprint256 } = new X509Certificate(await readFile(certFile));
  return Buffer.from(fingerprint256.replaceAll(':', ''), 'hex').toString('base64url');
}

/** The serial number of the certificate that the ops port presents. */
function serialOf(proc: ServiceProcess): Promise<string> {
  const [host, port] = proc.opsAddress.split(':');
  return new Promise((resolve, reject) => {
    // Only the serial number matters here, not the issuer.
    const socket = connectTls({ host, port: Number(port), rejectUnauthorized: false }, () => {
      resolve(socket.getPeerCertificate().serialNumber);
      socket.destroy();
    });
    socket.on('error', reject);
  });
}
