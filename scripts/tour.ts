/** `npm run tour`: walks through the main job with real calls against a private system, and proves each step. */

import { randomUUID } from 'node:crypto';
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
/** A revocation takes milliseconds while nothing is broken; whoever needs this long has not heard of it. */
const REFUSAL_TIMEOUT_MS = 2_000;
const STREAM_TIMEOUT_MS = 5_000;
const PROBE_INTERVAL_MS = 1;

/** A step that did not hold. */
class StepFailure extends Error {}

let stepNumber = 0;
const interrupted = new AbortController();
for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.on(signal, () => interrupted.abort());
process.exitCode = (await tour()) ? 0 : 1;

async function tour(): Promise<boolean> {
  const folder = await makeTemporaryFolder();
  let system: System | undefined;
  try {
    system = await step('Start the system on free ports', async () => {
      const started = await startSystem({
        dataDir: folder.path,
        ports: 'free',
        ephemeral: true,
        environment: { DATABASE_URL: process.env['DATABASE_URL'], NATS_URL: process.env['NATS_URL'] },
        signal: interrupted.signal,
      });
      return [started, 'auth, inventory twice, payment, PostgreSQL, nats-server'];
    });
    await walk(system);
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

async function walk(system: System): Promise<void> {
  const clients = connect(system);
  const { auth, inventory, payment } = clients;
  const [first] = inventory;
  const accountId = system.accounts?.alice ?? '';
  const logIn = async (name: UserName): Promise<LoginResponse> => {
    const { username, password } = system.users[name];
    const request = { username, password, audiences: [], scopes: [], deviceName: 'tour' };
    return await ask(auth.login.bind(auth), request);
  };

  const alice = await step('alice logs in', async () => {
    const login = await logIn('alice');
    return [login, `session ${login.session?.sessionId}`];
  });
  const token = alice.accessToken;
  const sessionId = alice.session?.sessionId ?? '';

  await step('alice lists the items', async () => {
    const { items } = await ask(
      first.listItems.bind(first),
      { pageSize: 0, pageToken: '', filter: '' },
      { token },
    );
    require(items.some(({ sku }) => sku === SKU), `${SKU} is not among the items`);
    return [undefined, items.map(({ sku, onHand }) => `${onHand} × ${sku}`).join(', ')];
  });

  await step(`alice reserves ${QUANTITY} × ${SKU}, and gives them back`, async () => {
    const lines = [{ sku: SKU, quantity: QUANTITY }];
    const request = { lines, timeToLive: undefined, requestId: randomUUID() };
    const { reservation } = await ask(first.reserveStock.bind(first), request, { token });
    require(reservation?.state ===
      ReservationState.RESERVATION_STATE_ACTIVE, 'the reservation is not active');
    const release = { reservationId: reservation.reservationId, requestId: randomUUID() };
    const released = await ask(first.releaseReservation.bind(first), release, { token });
    const state = released.reservation?.state;
    require(state === ReservationState.RESERVATION_STATE_RELEASED, 'the reservation was not released');
    return [undefined, `reservation ${reservation.reservationId}`];
  });

  const before = await stockAndBalance(clients, accountId, token);
  await step(`alice buys ${QUANTITY} × ${SKU}: payment reserves and commits on her behalf`, async () => {
    const request = { accountId, lines: [{ sku: SKU, quantity: QUANTITY }], requestId: randomUUID() };
    const { payment: made } = await ask(payment.checkout.bind(payment), request, { token });
    require(made?.state === PaymentState.PAYMENT_STATE_CAPTURED, 'the payment was not captured');
    return [undefined, `paid ${text(made.amount)}`];
  });

  await step('stock and balance have moved by exactly that', async () => {
    const after = await stockAndBalance(clients, accountId, token);
    const price = before.unitPrice * QUANTITY;
    require(after.onHand ===
      before.onHand - QUANTITY, `the stock went from ${before.onHand} to ${after.onHand}`);
    require(after.reserved === before.reserved, 'something is still reserved');
    require(after.balance ===
      before.balance - price, `the balance went from ${before.balance} to ${after.balance}`);
    return [
      undefined,
      `${SKU} ${before.onHand} → ${after.onHand}, balance ${cents(before.balance)} → ${cents(after.balance)}`,
    ];
  });

  const watches = await step('alice watches the stock on both instances', async () => {
    const opened = inventory.map((client) => watch(client, token));
    await Promise.all(opened.map(({ opened: firstMessage }) => firstMessage));
    return [opened, `${opened.length} streams are open`];
  });

  const olga = await step('olga, who may revoke, logs in', async () => {
    const login = await logIn('olga');
    return [login.accessToken, ''];
  });
  const bob = (await logIn('bob')).accessToken;
  await admitEverywhere(clients, token);

  const revokedAt = await step("olga revokes alice's session", async () => {
    const request = {
      target: { $case: 'sessionId' as const, value: sessionId },
      reason: 'the tour',
      wait: RevokeWait.REVOKE_WAIT_NONE,
    };
    const receipt = await ask(clients.revocation.revoke.bind(clients.revocation), request, { token: olga });
    return [performance.now(), `entry ${receipt.sequence} of the log`];
  });

  console.log('     counted from the moment at which Revoke had returned, so what was faster is below zero:');
  // All at once, so that each place is measured by itself.
  const places = placesOf(clients, token);
  const refusals = places.map(({ call }) => untilRefused(call, revokedAt));
  // A failure is reported by the step that looks at it, and is nobody's until then.
  for (const refusal of refusals) refusal.catch(() => undefined);
  for (const [index, { ended }] of watches.entries()) {
    await step(`the stream on inventory-${index + 1} has ended`, async () => {
      const { reason, atMs } = await ended;
      require(reason === 'TOKEN_REVOKED', `the stream ended with ${reason}`);
      return [undefined, reason, atMs - revokedAt];
    });
  }
  for (const [index, { name }] of places.entries()) {
    await step(`the next call to ${name} is refused`, async () => {
      const atMs = (await refusals[index]) ?? 0;
      return [undefined, 'TOKEN_REVOKED', atMs - revokedAt];
    });
  }

  await step('her refresh token is worth nothing', async () => {
    const request = { refreshToken: alice.refreshToken, requestId: randomUUID() };
    const refusal = await refusalOf(ask(auth.refresh.bind(auth), request));
    require(refusal === 'REFRESH_INVALID', `the answer was ${refusal}`);
    return [undefined, refusal];
  });

  await step('bob, whose session nobody revoked, is served everywhere', async () => {
    await admitEverywhere(clients, bob);
    return [
      undefined,
      placesOf(clients, bob)
        .map(({ name }) => name)
        .join(', '),
    ];
  });

  await step('alice logs in again and goes on', async () => {
    const again = (await logIn('alice')).accessToken;
    await admitEverywhere(clients, again);
    const { onHand, balance } = await stockAndBalance(clients, accountId, again);
    return [undefined, `${onHand} × ${SKU}, balance ${cents(balance)}`];
  });
  clients.close();
}

/** Runs one step, and prints what it did and how long it took unless the step has measured that itself. */
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

/** Every process that decides for itself whether it still trusts a customer's token, with a harmless call to it. */
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

/** Calls again and again until the answer is TOKEN_REVOKED; returns when that was. */
async function untilRefused(call: () => Promise<unknown>, fromMs: number): Promise<number> {
  for (;;) {
    const refusal = await refusalOf(call());
    const now = performance.now();
    if (refusal === 'TOKEN_REVOKED') return now;
    require(refusal === '', `the answer was ${refusal}`);
    require(now - fromMs < REFUSAL_TIMEOUT_MS, `calls are still admitted after ${REFUSAL_TIMEOUT_MS} ms`);
    await new Promise((resolve) => setTimeout(resolve, PROBE_INTERVAL_MS));
  }
}

/** The reason of an UNAUTHENTICATED answer; empty when the call succeeded. Anything else is an error. */
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
  /** Resolves when the stream has ended: why, and when. */
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

function text(money: Money | undefined): string {
  return money === undefined ? 'nothing' : `${cents(money.minorUnits)} ${money.currencyCode}`;
}

function cents(minorUnits: bigint): string {
  return `${minorUnits / 100n}.${String(minorUnits % 100n).padStart(2, '0')}`;
}

function describe(error: unknown): string {
  if (interrupted.signal.aborted) return 'Interrupted.';
  if (error instanceof StepFailure) return `This step did not hold: ${error.message}.`;
  if (error instanceof SystemError) return error.message;
  return `This step did not hold: ${error instanceof Error ? (error.stack ?? error.message) : error}`;
}
