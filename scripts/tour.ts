/** `npm run tour`: runs the main job with real calls on a private system, and checks each step. */

import { randomUUID } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';
import type { ClientReadableStream } from '@grpc/grpc-js';
import { credentials, status } from '@grpc/grpc-js';
import { errorOf } from '@portcullis/guard/client';
import type { LoginResponse } from '../proto/gen/auth/v1/auth_service.js';
import { AuthServiceClient } from '../proto/gen/auth/v1/auth_service.js';
import type { WatchStockResponse } from '../proto/gen/inventory/v1/inventory_service.js';
import { InventoryServiceClient, ReservationState } from '../proto/gen/inventory/v1/inventory_service.js';
import { PaymentServiceClient, PaymentState } from '../proto/gen/payment/v1/payment_service.js';
import { RevocationServiceClient, RevokeWait } from '../proto/gen/portcullis/revocation/v1/revocation.js';
import type { Money } from '../proto/gen/portcullis/type/v1/money.js';
import { ask, tokenMetadata } from './system/calls.js';
import type { UserName } from './system/secrets.js';
import type { System } from './system/system.js';
import { startSystem } from './system/system.js';
import { SystemError } from './system/system-error.js';
import { makeTemporaryFolder } from './system/temporary-folder.js';

const SKU = 'LAMP-01';
const QUANTITY = 2n;
/** A revocation reaches every instance within milliseconds when nothing is broken. */
const REFUSAL_TIMEOUT_MS = 2_000;
const STREAM_TIMEOUT_MS = 5_000;
const PROBE_INTERVAL_MS = 1;
const REVOKED = 'TOKEN_REVOKED';

/** A step whose claim did not hold. */
class StepFailure extends Error {}

let stepNumber = 0;
const interrupted = new AbortController();
for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.on(signal, () => interrupted.abort());
process.exitCode = (await tour()) ? 0 : 1;

async function tour(): Promise<boolean> {
  const folder = await makeTemporaryFolder();
  let system: System | undefined;
  try {
    system = await startPrivateSystem(folder.path);
    const clients = connect(system);
    try {
      await walk({ system, clients, accountId: system.accounts?.alice ?? '' });
    } finally {
      clients.close();
    }
    console.log('\nEvery step held.');
    return true;
  } catch (error) {
    console.error(`\n${describe(error)}`);
    return false;
  } finally {
    await system?.stop();
    await folder.remove();
  }
}

async function startPrivateSystem(dataDir: string): Promise<System> {
  console.log('Starting a private system; this takes some seconds.');
  return await step('Start the system on free ports', async () => {
    const system = await startSystem({
      dataDir,
      ports: 'free',
      ephemeral: true,
      environment: { DATABASE_URL: process.env['DATABASE_URL'], NATS_URL: process.env['NATS_URL'] },
      signal: interrupted.signal,
    });
    return [system, 'auth, inventory twice, payment, PostgreSQL, nats-server'];
  });
}

/** What the steps share. */
interface Tour {
  readonly system: System;
  readonly clients: Clients;
  /** alice's account. */
  readonly accountId: string;
}

async function walk(shared: Tour): Promise<void> {
  const { clients } = shared;
  const alice = await step('alice logs in', async () => {
    const login = await logIn(shared, 'alice');
    return [login, `session ${login.session?.sessionId}`];
  });
  const token = alice.accessToken;
  await listItems(clients, token);
  await reserveAndRelease(clients, token);
  await buy(shared, token);
  const watches = await watchStock(clients, token);
  const olga = await step('olga, who may revoke, logs in', async () => [
    (await logIn(shared, 'olga')).accessToken,
    '',
  ]);
  const bob = (await logIn(shared, 'bob')).accessToken;
  await admitEverywhere(clients, token);

  const revokedAtMs = await revokeSession(clients, alice.session?.sessionId ?? '', olga);
  await expectRefusals({ clients, token, watches, revokedAtMs });
  await expectNoRefresh(clients, alice.refreshToken);
  await expectOthersServed(clients, bob);
  await logInAgain(shared);
}

async function logIn({ system, clients }: Tour, name: UserName): Promise<LoginResponse> {
  const { username, password } = system.users[name];
  const request = { username, password, audiences: [], scopes: [], deviceName: 'tour' };
  return await ask(clients.auth.login.bind(clients.auth), request);
}

async function listItems({ inventory: [first] }: Clients, token: string): Promise<void> {
  await step('alice lists the items', async () => {
    const page = { pageSize: 0, pageToken: '', filter: '' };
    const { items } = await ask(first.listItems.bind(first), page, { token });
    require(items.some(({ sku }) => sku === SKU), `${SKU} is not among the items`);
    return [undefined, items.map(({ sku, onHand }) => `${onHand} × ${sku}`).join(', ')];
  });
}

async function reserveAndRelease({ inventory: [first] }: Clients, token: string): Promise<void> {
  await step(`alice reserves ${QUANTITY} × ${SKU}, and releases them`, async () => {
    const lines = [{ sku: SKU, quantity: QUANTITY }];
    const request = { lines, timeToLive: undefined, requestId: randomUUID() };
    const { reservation } = await ask(first.reserveStock.bind(first), request, { token });
    const isActive = reservation?.state === ReservationState.RESERVATION_STATE_ACTIVE;
    require(isActive, 'the reservation is not active');
    const release = { reservationId: reservation.reservationId, requestId: randomUUID() };
    const released = await ask(first.releaseReservation.bind(first), release, { token });
    const isReleased = released.reservation?.state === ReservationState.RESERVATION_STATE_RELEASED;
    require(isReleased, 'the reservation was not released');
    return [undefined, `reservation ${reservation.reservationId}`];
  });
}

async function buy({ clients, accountId }: Tour, token: string): Promise<void> {
  const { payment } = clients;
  const before = await stockAndBalance(clients, accountId, token);
  await step(`alice buys ${QUANTITY} × ${SKU}: payment reserves and commits on her behalf`, async () => {
    const request = { accountId, lines: [{ sku: SKU, quantity: QUANTITY }], requestId: randomUUID() };
    const { payment: made } = await ask(payment.checkout.bind(payment), request, { token });
    require(made?.state === PaymentState.PAYMENT_STATE_CAPTURED, 'the payment was not captured');
    return [undefined, `paid ${moneyText(made.amount)}`];
  });

  await step('stock and balance changed by exactly that', async () => {
    const after = await stockAndBalance(clients, accountId, token);
    const stock = `${before.onHand} → ${after.onHand}`;
    const balance = `${decimal(before.balance)} → ${decimal(after.balance)}`;
    require(after.onHand === before.onHand - QUANTITY, `the stock went ${stock}`);
    require(after.reserved === before.reserved, 'something is still reserved');
    require(after.balance === before.balance - before.unitPrice * QUANTITY, `the balance went ${balance}`);
    return [undefined, `${SKU} ${stock}, balance ${balance}`];
  });
}

async function watchStock({ inventory }: Clients, token: string): Promise<Watch[]> {
  return await step('alice watches the stock on both instances', async () => {
    const watches = inventory.map((client) => watch(client, token));
    await Promise.all(watches.map(({ opened }) => opened));
    return [watches, `${watches.length} streams are open`];
  });
}

/** @returns when Revoke returned */
async function revokeSession({ revocation }: Clients, sessionId: string, operator: string): Promise<number> {
  return await step("olga revokes alice's session", async () => {
    const request = {
      target: { $case: 'sessionId' as const, value: sessionId },
      reason: 'the tour',
      wait: RevokeWait.REVOKE_WAIT_NONE,
      targets: [],
      dryRun: false,
      fences: [],
    };
    const receipt = await ask(revocation.revoke.bind(revocation), request, { token: operator });
    return [performance.now(), `entry ${receipt.sequence} of the log`];
  });
}

async function expectRefusals(revoked: {
  readonly clients: Clients;
  readonly token: string;
  readonly watches: readonly Watch[];
  readonly revokedAtMs: number;
}): Promise<void> {
  const { clients, token, watches, revokedAtMs } = revoked;
  console.log(
    '     Times are relative to the return of Revoke; a negative time means the effect came before it:',
  );
  // All at once, so that each instance is measured on its own.
  const places = placesOf(clients, token);
  const refusals = places.map(({ call }) => untilRefused(call, revokedAtMs));
  // A failure is reported by the step that awaits it; until then it must not count as unhandled.
  for (const refusal of refusals) refusal.catch(() => undefined);
  for (const [index, { ended }] of watches.entries()) {
    await step(`the stream on inventory-${index + 1} has ended`, async () => {
      const { reason, atMs } = await ended;
      require(reason === REVOKED, `the stream ended with ${reason}`);
      return [undefined, reason, atMs - revokedAtMs];
    });
  }
  for (const [index, { name }] of places.entries()) {
    await step(`the next call to ${name} is refused`, async () => {
      const atMs = (await refusals[index]) ?? 0;
      return [undefined, REVOKED, atMs - revokedAtMs];
    });
  }
}

async function expectNoRefresh({ auth }: Clients, refreshToken: string): Promise<void> {
  await step('her refresh token is refused, too', async () => {
    const request = { refreshToken, requestId: randomUUID() };
    const refusal = await refusalOf(ask(auth.refresh.bind(auth), request));
    require(refusal === 'REFRESH_INVALID', `the answer was ${refusal || 'a new token'}`);
    return [undefined, refusal];
  });
}

async function expectOthersServed(clients: Clients, token: string): Promise<void> {
  await step('bob, whose session was not revoked, is served everywhere', async () => {
    await admitEverywhere(clients, token);
    const names = placesOf(clients, token).map(({ name }) => name);
    return [undefined, names.join(', ')];
  });
}

async function logInAgain(shared: Tour): Promise<void> {
  const { clients, accountId } = shared;
  await step('alice logs in again and is served', async () => {
    const token = (await logIn(shared, 'alice')).accessToken;
    await admitEverywhere(clients, token);
    const { onHand, balance } = await stockAndBalance(clients, accountId, token);
    return [undefined, `${onHand} × ${SKU}, balance ${decimal(balance)}`];
  });
}

/** Runs one step, and prints its outcome and its duration, or the time that the step returns. */
async function step<T>(title: string, work: () => Promise<readonly [T, string, number?]>): Promise<T> {
  interrupted.signal.throwIfAborted();
  stepNumber += 1;
  const number = String(stepNumber).padStart(2);
  const began = performance.now();
  try {
    const [result, detail, elapsedMs = performance.now() - began] = await work();
    console.log(`${number} ✓ ${milliseconds(elapsedMs)}  ${title}${detail === '' ? '' : `: ${detail}`}`);
    return result;
  } catch (error) {
    console.log(`${number} ✗ ${milliseconds(performance.now() - began)}  ${title}`);
    throw error;
  }
}

function require(holds: boolean, otherwise: string): asserts holds {
  if (!holds) throw new StepFailure(otherwise);
}

interface Clients {
  readonly auth: AuthServiceClient;
  readonly revocation: RevocationServiceClient;
  readonly inventory: readonly [InventoryServiceClient, InventoryServiceClient];
  readonly payment: PaymentServiceClient;
  close(): void;
}

function connect(system: System): Clients {
  const insecure = credentials.createInsecure();
  const [one, two] = system.inventory;
  const auth = new AuthServiceClient(system.auth.address, insecure);
  const revocation = new RevocationServiceClient(system.auth.address, insecure);
  const inventory = [
    new InventoryServiceClient(one.address, insecure),
    new InventoryServiceClient(two.address, insecure),
  ] as const;
  const payment = new PaymentServiceClient(system.payment.address, insecure);
  return {
    auth,
    revocation,
    inventory,
    payment,
    close() {
      for (const client of [auth, revocation, ...inventory, payment]) client.close();
    },
  };
}

/** Every instance that decides on a customer's token, with a call that only reads. */
function placesOf(
  { inventory, payment }: Clients,
  token: string,
): { name: string; call: () => Promise<unknown> }[] {
  const [one, two] = inventory;
  const page = { pageSize: 1, pageToken: '', filter: '' };
  return [
    { name: 'inventory-1', call: () => ask(one.listItems.bind(one), page, { token }) },
    { name: 'inventory-2', call: () => ask(two.listItems.bind(two), page, { token }) },
    { name: 'payment', call: () => ask(payment.listPayments.bind(payment), page, { token }) },
  ];
}

async function admitEverywhere(clients: Clients, token: string): Promise<void> {
  await Promise.all(placesOf(clients, token).map(({ call }) => call()));
}

/** Repeats a call until it is refused with TOKEN_REVOKED. @returns when it was refused */
async function untilRefused(call: () => Promise<unknown>, fromMs: number): Promise<number> {
  for (;;) {
    const refusal = await refusalOf(call());
    const now = performance.now();
    if (refusal === REVOKED) return now;
    require(refusal === '', `the answer was ${refusal}`);
    require(now - fromMs < REFUSAL_TIMEOUT_MS, `calls are still admitted after ${REFUSAL_TIMEOUT_MS} ms`);
    await sleep(PROBE_INTERVAL_MS);
  }
}

/** The reason of an UNAUTHENTICATED response; empty when the call succeeded. Other errors are thrown. */
async function refusalOf(answer: Promise<unknown>): Promise<string> {
  try {
    await answer;
    return '';
  } catch (error) {
    const { code, reason } = errorOf(error);
    if (code !== status.UNAUTHENTICATED) throw error;
    return reason;
  }
}

interface Watch {
  /** Resolves with the first message. */
  readonly opened: Promise<WatchStockResponse>;
  /** Resolves when the stream has ended, with the reason and the time. */
  readonly ended: Promise<{ reason: string; atMs: number }>;
}

function watch(client: InventoryServiceClient, token: string): Watch {
  const stream: ClientReadableStream<WatchStockResponse> = client.watchStock(
    { skus: [SKU], resumeToken: '' },
    tokenMetadata({ token }),
    { deadline: Date.now() + STREAM_TIMEOUT_MS },
  );
  const opened = new Promise<WatchStockResponse>((resolve, reject) => {
    stream.once('data', resolve);
    stream.once('error', reject);
  });
  const ended = new Promise<{ reason: string; atMs: number }>((resolve) => {
    stream.on('data', () => undefined);
    stream.on('error', (error) => {
      const { code, reason } = errorOf(error);
      resolve({ reason: reason === '' ? (status[code] ?? String(code)) : reason, atMs: performance.now() });
    });
    stream.on('end', () => setImmediate(resolve, { reason: 'OK', atMs: performance.now() }));
  });
  return { opened, ended };
}

async function stockAndBalance({ inventory, payment }: Clients, accountId: string, token: string) {
  const [first] = inventory;
  const { item } = await ask(first.getItem.bind(first), { sku: SKU }, { token });
  const { account } = await ask(payment.getAccount.bind(payment), { accountId }, { token });
  require(item?.unitPrice !== undefined, `${SKU} has no price`);
  require(account?.balance !== undefined, 'the account has no balance');
  return {
    onHand: item.onHand,
    reserved: item.reserved,
    unitPrice: item.unitPrice.minorUnits,
    balance: account.balance.minorUnits,
  };
}

function milliseconds(elapsed: number): string {
  return `${elapsed.toFixed(1)} ms`.padStart(11);
}

function moneyText(money: Money | undefined): string {
  return money === undefined ? 'nothing' : `${decimal(money.minorUnits)} ${money.currencyCode}`;
}

function decimal(minorUnits: bigint): string {
  return `${minorUnits / 100n}.${String(minorUnits % 100n).padStart(2, '0')}`;
}

function describe(error: unknown): string {
  if (interrupted.signal.aborted) return 'Interrupted.';
  if (error instanceof StepFailure) return `This step did not hold: ${error.message}.`;
  if (error instanceof SystemError) return error.message;
  return `This step did not hold: ${error instanceof Error ? (error.stack ?? error.message) : error}`;
}
