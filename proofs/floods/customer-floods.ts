/** Floods of customers: callers with a login, who may do nothing that a customer may not. */

import { randomUUID } from 'node:crypto';
import {
  ChangePasswordRequest,
  ListSessionsRequest,
  LoginRequest,
  LogoutRequest,
  RefreshRequest,
  RevokeSessionRequest,
} from '../../proto/gen/auth/v1/auth_service.js';
import {
  ListItemsRequest,
  ReserveStockRequest,
  WatchStockRequest,
} from '../../proto/gen/inventory/v1/inventory_service.js';
import { CheckoutRequest, ListPaymentsRequest } from '../../proto/gen/payment/v1/payment_service.js';
import { messageOf } from '../shared/wire.js';
import type { Attack } from './attack.js';
import type { Flood } from './flood.js';
import type { FloodCustomer } from './flood-input.js';

const AUTH = '/auth.v1.AuthService';
const INVENTORY = '/inventory.v1.InventoryService';
const LIST_ITEMS = `${INVENTORY}/ListItems`;
const PAYMENT = '/payment.v1.PaymentService';
/** As long as a reservation may last by default. */
const RESERVATION_SECONDS = 900n;
/** The item that honest customers reserve as well; the demo has 200 of them. */
const POPULAR_SKU = 'MUG-03';
const FILTER_LITERAL_CHARACTERS = 120;

/** One of the attackers' customers, each in a network of its own. */
function customerOf(attack: Attack, index: number): FloodCustomer & { readonly from: string } {
  const { customers } = attack.input;
  const customer = customers[index % customers.length];
  if (customer === undefined) throw new RangeError('the attackers have no customer');
  return { ...customer, from: attack.strange(index % customers.length) };
}

/** Sends one method with the token of the first customer, over 5 addresses, as one user with many devices. */
async function sendAsOne(
  attack: Attack,
  pace: { readonly perSecond: number; readonly atOnce: number; readonly most: number },
  call: (index: number) => { readonly to: string; readonly path: string; readonly message: Uint8Array },
): Promise<void> {
  const { accessToken: token } = customerOf(attack, 0);
  await attack.repeat(pace, async (index) => {
    await attack.send({ ...call(index), token, from: attack.strange(index % 5) });
  });
}

/** Opens so many streams of one customer with a whole message, and leaves them open. */
async function holdStreams(
  attack: Attack,
  options: { readonly streams: number; readonly path: string; readonly message: Uint8Array },
): Promise<void> {
  const { streams, path, message } = options;
  const headers = { authorization: `Bearer ${customerOf(attack, 0).accessToken}` };
  const { inventory } = attack.input.addresses;
  const sessions = Array.from({ length: 12 }, (_, index) =>
    attack.connect(inventory[index % 2] ?? '', attack.strange(index % 4)),
  );
  await attack.repeat({ perSecond: 1_500, atOnce: 1_500, most: streams }, (index) => {
    const session = sessions[index % sessions.length];
    if (session !== undefined) attack.open(session, path, headers)?.write(messageOf(message));
  });
  await attack.hold();
}

export const CUSTOMER_FLOODS: readonly Flood[] = [
  {
    name: 'refreshes-of-one-session',
    attacker: 'customer',
    title: '1,500 refreshes at once with one refresh token and one request id',
    notReached:
      'Auth grew by 53 and 67 MB in two measured runs, some 40 kB for each call in flight. A full collection did not always ' +
      'come within the ten seconds, so how much of it is garbage is not known.',
    run: (attack) => {
      const requestId = randomUUID();
      return attack.repeat({ perSecond: 3_000, atOnce: 1_500, most: 15_000 }, async (index) => {
        const { refreshToken } = customerOf(attack, 1);
        const message = RefreshRequest.encode({ refreshToken, requestId }).finish();
        const from = attack.strange(index % 5);
        await attack.send({ to: attack.input.addresses.auth, path: `${AUTH}/Refresh`, message, from });
      });
    },
  },
  {
    name: 'ends-of-one-session',
    attacker: 'customer',
    title: 'RevokeSession and Logout of one session, 1,000 at once',
    notReached:
      'Auth grew by 55 and 56 MB in two measured runs, for 1,000 calls in flight. A full collection did not always come within ' +
      'the ten seconds, so how much of it is garbage is not known.',
    run: (attack) =>
      attack.repeat({ perSecond: 2_000, atOnce: 1_000, most: 10_000 }, async (index) => {
        const { accessToken: token, from } = customerOf(attack, 2);
        const { sessionId } = customerOf(attack, 2);
        const isLogout = index % 2 === 1;
        await attack.send({
          to: attack.input.addresses.auth,
          path: isLogout ? `${AUTH}/Logout` : `${AUTH}/RevokeSession`,
          message: isLogout
            ? LogoutRequest.encode(LogoutRequest.fromPartial({})).finish()
            : RevokeSessionRequest.encode({ sessionId }).finish(),
          token,
          from,
        });
      }),
  },
  {
    name: 'password-changes',
    attacker: 'customer',
    title: 'ChangePassword with a wrong old password, by eight customers',
    notReached:
      'Customers who are logged in take turns with honest logins at the password hashes, of which each takes a processor.',
    run: (attack) =>
      attack.repeat({ perSecond: 200, atOnce: 400, most: 4_000 }, async (index) => {
        const { accessToken: token, from } = customerOf(attack, index);
        const message = ChangePasswordRequest.encode({
          oldPassword: `wrong-${index}-password`,
          newPassword: `other-${index}-password`,
        }).finish();
        await attack.send({
          to: attack.input.addresses.auth,
          path: `${AUTH}/ChangePassword`,
          message,
          token,
          from,
        });
      }),
  },
  {
    name: 'logins-of-one-user',
    attacker: 'customer',
    title: 'one customer who logs in with the right password again and again',
    run: (attack) =>
      attack.repeat({ perSecond: 100, atOnce: 200, most: 2_000 }, async (index) => {
        const { username, password } = customerOf(attack, 3);
        const message = LoginRequest.encode({
          username,
          password,
          audiences: [],
          scopes: [],
          deviceName: `device ${index}`,
        }).finish();
        const from = attack.strange(index % 5);
        await attack.send({ to: attack.input.addresses.auth, path: `${AUTH}/Login`, message, from });
      }),
  },
  {
    name: 'stock-watchers',
    attacker: 'customer',
    title: '4,200 WatchStock streams of one customer',
    run: (attack) =>
      holdStreams(attack, {
        streams: 4_200,
        path: `${INVENTORY}/WatchStock`,
        message: WatchStockRequest.encode({ skus: [], resumeToken: '' }).finish(),
      }),
  },
  {
    name: 'calls-never-ended',
    attacker: 'customer',
    title: '4,000 admitted unary calls of one customer whose request never ends',
    run: (attack) =>
      holdStreams(attack, {
        streams: 4_000,
        path: LIST_ITEMS,
        message: ListItemsRequest.encode({ pageSize: 1, pageToken: '', filter: '' }).finish(),
      }),
  },
  {
    name: 'calls-in-flight',
    attacker: 'customer',
    title: 'ListItems of one customer, 2,000 at once',
    notReached:
      'The calls that one user may have in flight fill the processors of a small machine: services had no processor for ' +
      '40 % of the time.',
    run: (attack) =>
      sendAsOne(attack, { perSecond: 5_000, atOnce: 2_000, most: 60_000 }, (index) => ({
        to: attack.input.addresses.inventory[index % 2 === 0 ? 0 : 1],
        path: LIST_ITEMS,
        message: ListItemsRequest.encode({ pageSize: 100, pageToken: '', filter: '' }).finish(),
      })),
  },
  {
    name: 'costly-filters',
    attacker: 'customer',
    title: 'lists with filters of many wildcards, at all services',
    run: (attack) => {
      const text = 'a*'.repeat(FILTER_LITERAL_CHARACTERS / 2);
      const filter = Array.from({ length: 3 }, () => `name = "*${text}"`).join(' AND ');
      const { auth, inventory, payment } = attack.input.addresses;
      const page = { pageSize: 100, pageToken: '' };
      const calls = [
        {
          to: inventory[0],
          path: LIST_ITEMS,
          message: ListItemsRequest.encode({ ...page, filter }).finish(),
        },
        {
          to: inventory[1],
          path: LIST_ITEMS,
          message: ListItemsRequest.encode({ ...page, filter }).finish(),
        },
        {
          to: payment,
          path: `${PAYMENT}/ListPayments`,
          message: ListPaymentsRequest.encode({ ...page, filter: 'state = "x*"' }).finish(),
        },
        { to: auth, path: `${AUTH}/ListSessions`, message: ListSessionsRequest.encode(page).finish() },
      ];
      return sendAsOne(attack, { perSecond: 1_000, atOnce: 300, most: 20_000 }, (index) => {
        const call = calls[index % calls.length];
        if (call === undefined) throw new RangeError('there is no such call');
        return call;
      });
    },
  },
  {
    name: 'reserve-everything',
    attacker: 'customer',
    title: 'one call that reserves all of an item for as long as it can, and 150 open reservations',
    run: (attack) =>
      sendAsOne(attack, { perSecond: 100, atOnce: 50, most: 150 }, (index) => ({
        to: attack.input.addresses.inventory[index % 2 === 0 ? 0 : 1],
        path: `${INVENTORY}/ReserveStock`,
        message: ReserveStockRequest.encode({
          lines: [{ sku: POPULAR_SKU, quantity: index === 0 ? 200n : 1n }],
          timeToLive: { seconds: RESERVATION_SECONDS, nanos: 0 },
          requestId: randomUUID(),
        }).finish(),
      })),
  },
  {
    name: 'request-ids',
    attacker: 'customer',
    title: 'requests under ever new request ids that cannot succeed',
    run: (attack) =>
      sendAsOne(attack, { perSecond: 500, atOnce: 200, most: 10_000 }, (index) =>
        index % 2 === 0
          ? {
              to: attack.input.addresses.inventory[0],
              path: `${INVENTORY}/ReserveStock`,
              message: ReserveStockRequest.encode({
                lines: [{ sku: POPULAR_SKU, quantity: 1_000_000n }],
                timeToLive: { seconds: 60n, nanos: 0 },
                requestId: randomUUID(),
              }).finish(),
            }
          : {
              to: attack.input.addresses.payment,
              path: `${PAYMENT}/Checkout`,
              message: CheckoutRequest.encode({
                accountId: randomUUID(),
                lines: [{ sku: POPULAR_SKU, quantity: 1n }],
                requestId: randomUUID(),
              }).finish(),
            },
      ),
  },
];
