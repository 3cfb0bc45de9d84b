/** docs/operating/back-up.md, rehearsed with the data folder of `npm start`. */

import { execFileSync } from 'node:child_process';
import { rm } from 'node:fs/promises';
import { join } from 'node:path';
import { expect } from 'chai';
import { RevokeRequest } from '../../proto/gen/portcullis/revocation/v1/revocation.js';
import { ask } from '../../scripts/system/calls.js';
import { type System, startSystem } from '../../scripts/system/system.js';
import type { PortFlags } from '../../scripts/system/system-ports.js';
import { makeTemporaryFolder, type TemporaryFolder } from '../../scripts/system/temporary-folder.js';
import { outcomeOf } from '../support/outcomes.js';
import { runProgram } from '../support/programs.js';
import { clientsOf, LEASE_MS, type SystemClients } from '../support/system.js';
import { until } from '../support/waiting.js';

const PAGE = { pageSize: 10, pageToken: '', filter: '' };

describe('a restored system', function () {
  this.timeout(300_000);
  let folder: TemporaryFolder;
  let dataDir: string;
  let copy: string;
  let ports: PortFlags = {};
  let system: System;
  let clients: SystemClients;

  before(async () => {
    folder = await makeTemporaryFolder();
    dataDir = join(folder.path, 'data');
    copy = join(folder.path, 'copy');
  });
  after(async () => {
    await stop();
    await folder.remove();
  });

  /** On the same ports each time: they are part of the issuer. */
  async function start(): Promise<void> {
    system = await startSystem({
      dataDir,
      ports: 'free',
      portOverrides: ports,
      ephemeral: true,
      leaseMs: LEASE_MS,
    });
    clients = clientsOf(system);
    const portOf = (address: string): number => Number(address.split(':').at(-1));
    ports = {
      auth: portOf(system.auth.address),
      inventory1: portOf(system.inventory[0].address),
      inventory2: portOf(system.inventory[1].address),
      payment: portOf(system.payment.address),
      postgres: portOf(new URL(system.postgres?.url('postgres') ?? '').host),
      nats: portOf(new URL(system.nats?.url('auth') ?? '').host),
    };
  }

  async function stop(): Promise<void> {
    clients?.close();
    await system?.stop();
  }

  /** Calls an instance of inventory with a token. */
  async function outcomeWith(token: string): Promise<string> {
    const [inventory] = clients.inventory;
    return await outcomeOf(ask(inventory.listItems.bind(inventory), PAGE, { token }));
  }

  async function openEpoch(): Promise<string> {
    const { code, output } = await runProgram(
      ['services/auth/main', 'open-epoch', 'restored', 'in', 'a', 'test'],
      {
        env: {
          DATABASE_URL: system.serviceDatabases.auth.url,
          PORTCULLIS_ISSUER: system.issuer,
          PORTCULLIS_LISTEN: '127.0.0.1:0',
          PORTCULLIS_OPS_LISTEN: '127.0.0.1:0',
          PORTCULLIS_KEY_ENCRYPTION_KEY_FILE: system.secrets.keyEncryptionKeyFile,
          PORTCULLIS_LEASE_MS: String(LEASE_MS),
        },
      },
    );
    expect(code, output).to.equal(0);
    return output;
  }

  it('rejects what was revoked after the backup once a new epoch is open, and has the data of the backup', async () => {
    await start();
    const stolen = (await clients.logIn('alice')).accessToken;
    await stop();
    // Keeps owners: PostgreSQL runs as another user.
    execFileSync('cp', ['--archive', dataDir, copy]);

    await start();
    const { accessToken: operator } = await clients.logIn('olga');
    const target = RevokeRequest.fromPartial({ target: { $case: 'token', value: stolen }, reason: 'stolen' });
    await ask(clients.revocation.revoke.bind(clients.revocation), target, { token: operator });
    await until(async () => (await outcomeWith(stolen)) === 'UNAUTHENTICATED TOKEN_REVOKED');
    await stop();

    await rm(dataDir, { recursive: true });
    execFileSync('cp', ['--archive', copy, dataDir]);
    await start();
    // What the page warns of: the revocation is not in the backup.
    expect(await outcomeWith(stolen)).to.equal('OK');
    expect(await openEpoch()).to.include('opened a new epoch');
    // Instances first learn that their list is of another epoch, and then that the key of the token is revoked.
    const outcomes: string[] = [];
    await until(async () => {
      outcomes.push(await outcomeWith(stolen));
      return outcomes.at(-1) === 'UNAUTHENTICATED TOKEN_INVALID';
    });
    expect(outcomes.slice(outcomes.findIndex((outcome) => outcome !== 'OK'))).to.not.include('OK');

    const { accessToken } = await clients.logIn('alice');
    await until(async () => (await outcomeWith(accessToken)) === 'OK');
    const { payment } = clients;
    const accountId = system.accounts?.alice ?? '';
    const getAccount = () => ask(payment.getAccount.bind(payment), { accountId }, { token: accessToken });
    // Payment follows the epoch by itself, perhaps after inventory.
    await until(async () => (await outcomeOf(getAccount())) === 'OK');
    const { account } = await getAccount();
    expect(account?.accountId).to.equal(accountId);
  });
});
