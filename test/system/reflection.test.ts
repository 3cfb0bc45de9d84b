/** Reflection for a caller that has only an address: it finds the services, and calls them without a `.proto`. */

import { execFile } from 'node:child_process';
import { randomUUID } from 'node:crypto';
import { createRequire } from 'node:module';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { expect } from 'chai';
import type { System } from '../../scripts/system/system.js';
import { sharedSystem } from '../support/system.js';

const START_TIMEOUT_MS = 120_000;
const BUF_TIMEOUT_MS = 30_000;
const BUF = join(createRequire(import.meta.url).resolve('@bufbuild/buf/package.json'), '..', 'bin', 'buf');

describe('reflection, as buf curl uses it', function () {
  this.timeout(BUF_TIMEOUT_MS);
  let system: System;

  before(async function () {
    this.timeout(START_TIMEOUT_MS);
    system = await sharedSystem();
  });

  it('lists the services on every port', async () => {
    const common = [
      'grpc.health.v1.Health',
      'grpc.reflection.v1.ServerReflection',
      'grpc.reflection.v1alpha.ServerReflection',
    ];
    const own = {
      [system.auth.address]: [
        'auth.v1.AuthService',
        'auth.v1.ClientService',
        'auth.v1.EvidenceService',
        'auth.v1.KeyService',
        'auth.v1.PolicyService',
        'auth.v1.SecurityService',
        'auth.v1.UserService',
        'portcullis.revocation.v1.RevocationService',
      ],
      [system.inventory[0].address]: ['inventory.v1.InventoryService'],
      [system.inventory[1].address]: ['inventory.v1.InventoryService'],
      [system.payment.address]: ['payment.v1.PaymentService'],
    };
    for (const [address, services] of Object.entries(own)) {
      const listed = await buf([`http://${address}`, '--list-services']);
      expect(listed.trim().split('\n')).to.have.members([...common, ...services]);
    }
  });

  it('calls ListItems and ReserveStock with the token that Login returned', async () => {
    const { username, password } = system.users.alice;
    const login = await curl(system.auth.address, 'auth.v1.AuthService/Login', { username, password });
    const header = ['--header', `authorization: Bearer ${String(login['accessToken'])}`];
    const address = system.inventory[0].address;
    const list = await curl(address, 'inventory.v1.InventoryService/ListItems', {}, header);
    const items = list['items'] as { sku: string }[];
    expect(items.map(({ sku }) => sku)).to.deep.equal(['CHAIR-02', 'LAMP-01', 'MUG-03']);
    const request = { lines: [{ sku: 'MUG-03', quantity: 1 }], request_id: randomUUID() };
    const reserved = await curl(address, 'inventory.v1.InventoryService/ReserveStock', request, header);
    expect(reserved['reservation']).to.include({ state: 'RESERVATION_STATE_ACTIVE' });
  });

  it('shows status and reason of a call without a token', async () => {
    const address = system.inventory[1].address;
    const failure = await curl(address, 'inventory.v1.InventoryService/ListItems', {}).then(
      () => undefined,
      (error: unknown) => error,
    );
    expect(failure).to.be.instanceOf(Error);
    const said = failure instanceof Error && 'stderr' in failure ? String(failure.stderr) : '';
    const { code, details } = JSON.parse(said) as {
      code: string;
      details: { type: string; value: string }[];
    };
    expect(code).to.equal('unauthenticated');
    expect(details.map(({ type }) => type)).to.deep.equal(['google.rpc.ErrorInfo']);
    expect(Buffer.from(details[0]?.value ?? '', 'base64').toString()).to.contain('TOKEN_MISSING');
  });

  async function curl(
    address: string,
    method: string,
    request: object,
    flags: readonly string[] = [],
  ): Promise<Record<string, unknown>> {
    const answer = await buf([`http://${address}/${method}`, '--data', JSON.stringify(request), ...flags]);
    return JSON.parse(answer) as Record<string, unknown>;
  }
});

async function buf(flags: readonly string[]): Promise<string> {
  const common = ['curl', '--protocol', 'grpc', '--http2-prior-knowledge'];
  const { stdout } = await promisify(execFile)(process.execPath, [BUF, ...common, ...flags], {
    timeout: BUF_TIMEOUT_MS,
  });
  return stdout;
}
