/** The demo's items and accounts, created through the services' own methods. */

import { readFile } from 'node:fs/promises';
import type { ChannelCredentials, ServiceError } from '@grpc/grpc-js';
import { status } from '@grpc/grpc-js';
import { AuthServiceClient } from '../../proto/gen/auth/v1/auth_service.js';
import { InventoryServiceClient } from '../../proto/gen/inventory/v1/inventory_service.js';
import { PaymentServiceClient } from '../../proto/gen/payment/v1/payment_service.js';
import { ask } from './calls.js';
import { writeAtomically } from './files.js';
import type { DemoUser, UserName } from './secrets.js';

const CURRENCY = 'EUR';

const ITEMS = [
  { sku: 'LAMP-01', name: 'Desk lamp', minorUnits: 3_490n, onHand: 40n },
  { sku: 'CHAIR-02', name: 'Oak chair', minorUnits: 12_900n, onHand: 12n },
  { sku: 'MUG-03', name: 'Mug', minorUnits: 950n, onHand: 200n },
] as const;

const DEPOSITS = { alice: 50_000n, bob: 20_000n } as const;

type AccountHolder = keyof typeof DEPOSITS;

/** The account id of each customer. */
export type DemoAccounts = Readonly<Record<AccountHolder, string>>;

interface DemoOptions {
  readonly addresses: { readonly auth: string; readonly inventory: string; readonly payment: string };
  readonly credentials: ChannelCredentials;
  readonly users: Readonly<Record<UserName, DemoUser>>;
  /** Records that the demo's data exist. */
  readonly file: string;
  /** Identifies the databases; in other databases the data are created again. */
  readonly databases: string;
}

/**
 * Creates items and funded accounts, once for each set of databases. Each request has a fixed request id, so an
 * interrupted run continues where it stopped.
 */
export async function createDemoData(options: DemoOptions): Promise<DemoAccounts> {
  const done = await recordedDemo(options);
  if (done !== undefined) return done;
  const olga = await logIn(options, 'olga');
  const accounts = await Promise.all([
    createAccount(options, olga, 'alice'),
    createAccount(options, olga, 'bob'),
    createItems(options, olga),
  ]).then(([alice, bob]) => ({ alice, bob }));
  await writeAtomically(options.file, JSON.stringify({ databases: options.databases, accounts }));
  return accounts;
}

async function recordedDemo({ file, databases }: DemoOptions): Promise<DemoAccounts | undefined> {
  const text = await readFile(file, 'utf8').catch(() => undefined);
  if (text === undefined) return undefined;
  const record = JSON.parse(text) as { databases: string; accounts: DemoAccounts };
  return record.databases === databases ? record.accounts : undefined;
}

async function logIn({ addresses, credentials, users }: DemoOptions, name: UserName): Promise<string> {
  const client = new AuthServiceClient(addresses.auth, credentials);
  try {
    const { username, password } = users[name];
    const request = { username, password, audiences: [], scopes: [], deviceName: 'demo' };
    return (await ask(client.login.bind(client), request)).accessToken;
  } finally {
    client.close();
  }
}

async function createItems({ addresses, credentials }: DemoOptions, token: string): Promise<void> {
  const client = new InventoryServiceClient(addresses.inventory, credentials);
  try {
    for (const { sku, name, minorUnits, onHand } of ITEMS) {
      const unitPrice = { minorUnits, currencyCode: CURRENCY };
      const request = { sku, name, unitPrice, onHand, requestId: `demo-item-${sku}` };
      await ask(client.createItem.bind(client), request, { token }).catch(allowExisting);
    }
  } finally {
    client.close();
  }
}

async function createAccount(options: DemoOptions, operator: string, holder: AccountHolder): Promise<string> {
  const client = new PaymentServiceClient(options.addresses.payment, options.credentials);
  try {
    const token = await logIn(options, holder);
    const request = { currencyCode: CURRENCY, requestId: 'demo-account' };
    const { account } = await ask(client.openAccount.bind(client), request, { token });
    if (account === undefined) throw new Error('payment opened an account and did not return it');
    const amount = { minorUnits: DEPOSITS[holder], currencyCode: CURRENCY };
    const deposit = { accountId: account.accountId, amount, requestId: `demo-deposit-${holder}` };
    await ask(client.deposit.bind(client), deposit, { token: operator });
    return account.accountId;
  } finally {
    client.close();
  }
}

/** Ignores ALREADY_EXISTS: an earlier start may have created the item. */
function allowExisting(error: ServiceError): void {
  if (error.code !== status.ALREADY_EXISTS) throw error;
}
