/** Floods by reading: pages as fast as they come, and responses that are asked for and never read. */

import { randomBytes } from 'node:crypto';
import type { ClientHttp2Session } from 'node:http2';
import {
  GetKeysRequest,
  ListSessionsRequest,
  ListSessionsResponse,
} from '../../proto/gen/auth/v1/auth_service.js';
import {
  ListSecurityEventsRequest,
  ListSecurityEventsResponse,
  WatchSecurityEventsRequest,
} from '../../proto/gen/auth/v1/security_service.js';
import { ListUsersRequest, ListUsersResponse } from '../../proto/gen/auth/v1/user_service.js';
import {
  ListItemsRequest,
  ListItemsResponse,
  WatchStockRequest,
} from '../../proto/gen/inventory/v1/inventory_service.js';
import { ListPaymentsRequest, ListPaymentsResponse } from '../../proto/gen/payment/v1/payment_service.js';
import { PullRequest } from '../../proto/gen/portcullis/revocation/v1/revocation.js';
import { messageOf } from '../shared/wire.js';
import type { Attack } from './attack.js';
import type { Flood } from './flood.js';

const GET_KEYS = '/auth.v1.AuthService/GetKeys';
const HEALTH_CHECK = '/grpc.health.v1.Health/Check';
const LIST_ITEMS = '/inventory.v1.InventoryService/ListItems';
const LARGEST_PAGE = 100;
const INSTANCE_ID_BYTES = 16;

/** A paged list: its requests, and where the next page begins. */
interface List {
  readonly to: string;
  readonly path: string;
  request(page: { pageSize: number; pageToken: string }): Uint8Array;
  next(response: Buffer): string;
}

function customerLists({ input: { addresses } }: Attack): readonly List[] {
  const items = (to: string): List => ({
    to,
    path: LIST_ITEMS,
    request: (page) => ListItemsRequest.encode({ ...page, filter: '' }).finish(),
    next: (response) => ListItemsResponse.decode(response).nextPageToken,
  });
  return [
    {
      to: addresses.auth,
      path: '/auth.v1.AuthService/ListSessions',
      request: (page) => ListSessionsRequest.encode(page).finish(),
      next: (response) => ListSessionsResponse.decode(response).nextPageToken,
    },
    ...addresses.inventory.map(items),
    {
      to: addresses.payment,
      path: '/payment.v1.PaymentService/ListPayments',
      request: (page) => ListPaymentsRequest.encode({ ...page, filter: '' }).finish(),
      next: (response) => ListPaymentsResponse.decode(response).nextPageToken,
    },
  ];
}

function securityLists({ input: { addresses } }: Attack): readonly List[] {
  return [
    {
      to: addresses.auth,
      path: '/auth.v1.UserService/ListUsers',
      request: (page) => ListUsersRequest.encode(page).finish(),
      next: (response) => ListUsersResponse.decode(response).nextPageToken,
    },
    {
      to: addresses.auth,
      path: '/auth.v1.SecurityService/ListSecurityEvents',
      request: (page) => ListSecurityEventsRequest.encode({ ...page, filter: undefined }).finish(),
      next: (response) => ListSecurityEventsResponse.decode(response).nextPageToken,
    },
  ];
}

/** Walks the pages of lists again and again, so many walks at once; each waits for a page before it asks for the next. */
async function walk(
  attack: Attack,
  options: {
    readonly lists: readonly List[];
    readonly walks: number;
    readonly pageSize: number;
    /** The token of a walk. */
    readonly token: (walk: number) => string;
  },
): Promise<void> {
  const { lists, walks, pageSize, token } = options;
  const places = new Map<number, string>();
  const sessions = new Map<string, ClientHttp2Session>();
  await attack.repeat({ perSecond: 4_000, atOnce: walks, most: 40_000 }, async (index) => {
    const which = index % walks;
    const list = lists[which % lists.length];
    if (list === undefined) throw new RangeError('there is no such list');
    const from = attack.strange(which % 8);
    let session = sessions.get(`${list.to} ${from}`);
    if (session === undefined || session.closed || session.destroyed) {
      session = attack.connect(list.to, from);
      sessions.set(`${list.to} ${from}`, session);
    }
    const request = list.request({ pageSize, pageToken: places.get(which) ?? '' });
    const response = await attack.call(session, list.path, request, token(which));
    if (response !== undefined) attack.count('pages');
    places.set(which, response === undefined ? '' : list.next(response));
  });
}

/** Sends complete calls on many connections whose windows stay shut, so that no byte of a response can be sent. */
async function askWithoutReading(
  attack: Attack,
  options: {
    readonly targets: readonly string[];
    readonly connections: number;
    readonly calls: number;
    readonly path: (target: string) => string;
    readonly message: Uint8Array;
    readonly token?: (connection: number) => string;
  },
): Promise<void> {
  const { targets, connections, calls, path, message, token } = options;
  const sessions = new Map<number, ClientHttp2Session>();
  const targetOf = (which: number): string => targets[which % targets.length] ?? '';
  await attack.repeat({ perSecond: 2_000, atOnce: 2_000, most: calls }, (index) => {
    const which = index % connections;
    const to = targetOf(which);
    let session = sessions.get(which);
    if (session === undefined) {
      session = attack.connect(to, attack.strange(which), 0);
      sessions.set(which, session);
    }
    const headers = token === undefined ? {} : { authorization: `Bearer ${token(which)}` };
    attack.open(session, path(to), headers)?.end(messageOf(message));
  });
  await attack.hold();
}

function customerToken(attack: Attack): (index: number) => string {
  const { customers } = attack.input;
  return (index) => customers[index % customers.length]?.accessToken ?? '';
}

export const READER_FLOODS: readonly Flood[] = [
  {
    name: 'list-walks',
    attacker: 'customer',
    title:
      'the pages of all lists of a customer, one row a page, by eight customers as fast as they are answered',
    notReached:
      'Customers take turns at the database, but 2,000 pages a second fill the processors of a small machine: services had ' +
      'no processor for 40 % of the time.',
    run: (attack) =>
      walk(attack, { lists: customerLists(attack), walks: 200, pageSize: 1, token: customerToken(attack) }),
  },
  {
    name: 'record-walks',
    attacker: 'security',
    title: 'the pages of ListUsers and ListSecurityEvents as fast as they are answered',
    notReached:
      'A user who may read the records can keep a processor busy with 700 pages of 100 rows a second: disable the account. ' +
      'The heap of auth grows to what this takes and no further: it was the same after 5,000 pages and after 21,000.',
    run: (attack) =>
      walk(attack, {
        lists: securityLists(attack),
        walks: 150,
        pageSize: LARGEST_PAGE,
        token: () => attack.input.securityToken,
      }),
  },
  {
    name: 'unread-events',
    attacker: 'security',
    title: '200 WatchSecurityEvents streams from the first event on, of which nothing is read',
    run: (attack) =>
      askWithoutReading(attack, {
        targets: [attack.input.addresses.auth],
        connections: 10,
        calls: 200,
        path: () => '/auth.v1.SecurityService/WatchSecurityEvents',
        message: WatchSecurityEventsRequest.encode({
          filter: undefined,
          resumeToken: Buffer.from('event 1').toString('base64url'),
        }).finish(),
        token: () => attack.input.securityToken,
      }),
  },
  {
    name: 'unread-pulls',
    attacker: 'service',
    title: '900 Pulls of the whole list, of which nothing is read',
    run: (attack) =>
      askWithoutReading(attack, {
        targets: [attack.input.addresses.auth],
        connections: 10,
        calls: 900,
        path: () => '/portcullis.revocation.v1.RevocationService/Pull',
        message: PullRequest.encode({
          service: attack.input.service.clientId,
          instance: randomBytes(INSTANCE_ID_BYTES),
        }).finish(),
        token: () => attack.input.service.accessToken,
      }),
  },
  {
    name: 'unread-stock',
    attacker: 'customer',
    title: '800 WatchStock streams of eight customers, of which nothing is read',
    notReached:
      'The streams begin within half a second, and read stock from the database as reservations do; they end in the same ' +
      'moment, when 32 connections close: 400 streams in each process.',
    run: (attack) =>
      askWithoutReading(attack, {
        targets: attack.input.addresses.inventory,
        connections: 32,
        calls: 800,
        path: () => '/inventory.v1.InventoryService/WatchStock',
        message: WatchStockRequest.encode({ skus: [], resumeToken: '' }).finish(),
        token: customerToken(attack),
      }),
  },
  {
    name: 'unread-lists',
    attacker: 'customer',
    title: '4,000 complete calls of ListItems by eight customers, whose responses are not read',
    run: (attack) =>
      askWithoutReading(attack, {
        targets: attack.input.addresses.inventory,
        connections: 40,
        calls: 4_000,
        path: () => LIST_ITEMS,
        message: ListItemsRequest.encode({ pageSize: LARGEST_PAGE, pageToken: '', filter: '' }).finish(),
        token: customerToken(attack),
      }),
  },
  {
    name: 'unread-answers',
    attacker: 'stranger',
    title:
      '8,000 complete calls of GetKeys and Health/Check over 80 connections, whose responses are not read',
    run: (attack) =>
      askWithoutReading(attack, {
        targets: attack.everywhere,
        connections: 80,
        calls: 8_000,
        path: (to) => (to === attack.input.addresses.auth ? GET_KEYS : HEALTH_CHECK),
        message: GetKeysRequest.encode({}).finish(),
      }),
  },
  {
    name: 'shared-address',
    attacker: 'stranger',
    title:
      "public calls over 200 connections from the honest callers' own address, as fast as they are answered",
    run: async (attack) => {
      const { auth } = attack.input.addresses;
      const sessions: ClientHttp2Session[] = [];
      const message = GetKeysRequest.encode({}).finish();
      await attack.repeat({ perSecond: 3_000, atOnce: 400, most: 60_000 }, async (index) => {
        const which = index % 200;
        sessions[which] ??= attack.connect(auth, '127.0.0.1');
        const session = sessions[which];
        if (session !== undefined) await attack.call(session, GET_KEYS, message);
      });
    },
  },
];
