/** Honest traffic: callers who do what they may, at a steady pace, while strangers flood the system. */

import { randomUUID } from 'node:crypto';
import { request } from 'node:http';
import { setTimeout as sleep } from 'node:timers/promises';
import { type ChannelOptions, Client, status } from '@grpc/grpc-js';
import { createServiceTokenSource, errorOf } from '@portcullis/guard/client';
import { AuthServiceClient } from '../../proto/gen/auth/v1/auth_service.js';
import { InventoryServiceClient } from '../../proto/gen/inventory/v1/inventory_service.js';
import { PaymentServiceClient } from '../../proto/gen/payment/v1/payment_service.js';
import { RevocationServiceClient, RevokeWait } from '../../proto/gen/portcullis/revocation/v1/revocation.js';
import { ask } from '../../scripts/system/calls.js';
import type { Environment } from './environment.js';

/** An honest caller gives up after this long. */
const TIMEOUT_MS = 5_000;
/** A Revoke that waits is answered within the bound of the promise, which is longer. */
const REVOKE_TIMEOUT_MS = 10_000;
/** A probe of an orchestrator gives up sooner. */
const PROBE_TIMEOUT_MS = 1_000;
const KNOWN_INTERVAL_MS = 40;
const LOGIN_INTERVAL_MS = 500;
const TOKEN_INTERVAL_MS = 500;
const PROBE_INTERVAL_MS = 500;
const RESERVE_INTERVAL_MS = 500;
const STALE = 'REVOCATION_STATE_STALE';
const LIMITED = 'RATE_LIMITED';
const FAILURE_CHARACTERS_MAX = 120;
const POPULAR_SKU = 'MUG-03';
const READ_SKU = 'LAMP-01';
/** Clients of one address share a connection unless each has a pool of its own. */
const CHANNEL_OPTIONS: ChannelOptions = { 'grpc.use_local_subchannel_pool': 1 };

/** What honest callers do. */
export const HONEST_CLASSES = [
  /** Calls with tokens that the services know: of all four processes in turn. */
  'known',
  /** The first call with a token that was just issued. */
  'new',
  /** Logins with the right password from a known network. */
  'login',
  /** Revoke that waits for the known instances. */
  'revoke',
  /** Service tokens by a signed assertion. */
  'token',
  /** A reservation and its release. */
  'reserve',
  /** `/livez` of every process, each over a new connection. */
  'probe',
  /** The age of each instance's last sync. */
  'sync',
] as const;

/** One of {@link HONEST_CLASSES}. */
export type HonestClass = (typeof HONEST_CLASSES)[number];

/** One honest call, or one look at the age of a sync. */
export interface Sample {
  readonly kind: HonestClass;
  readonly startedMs: number;
  readonly ms: number;
  /** Why it failed; `undefined` when it succeeded. */
  readonly failure?: string;
  /** Whether the failure says that the caller is over a limit, and for how long. */
  readonly limited?: boolean;
  readonly stale?: boolean;
}

/** Honest callers at work. */
export interface HonestTraffic {
  /** All samples since {@link forget}, in the order in which they ended. */
  readonly samples: readonly Sample[];
  forget(): void;
  record(sample: Sample): void;
  /** Ends the traffic; resolves when the last call has ended. */
  stop(): Promise<void>;
}

/** Starts the honest traffic on connections of its own, which are open before any flood. */
export function startHonestTraffic(environment: Environment): HonestTraffic {
  const { system } = environment;
  const channel = [system.credentials, CHANNEL_OPTIONS] as const;
  const clients = {
    auth: new AuthServiceClient(system.auth.address, ...channel),
    inventory: system.inventory.map(({ address }) => new InventoryServiceClient(address, ...channel)),
    payment: new PaymentServiceClient(system.payment.address, ...channel),
    revocation: new RevocationServiceClient(system.auth.address, ...channel),
  };
  const samples: Sample[] = [];
  const stopping = new AbortController();
  const open = new Set<Promise<unknown>>();
  const timed: Timed = async (kind, work) => {
    const startedMs = performance.now();
    const end = (rest: Partial<Sample>): void => {
      samples.push({ kind, startedMs, ms: performance.now() - startedMs, ...rest });
    };
    try {
      const result = await work();
      end({});
      return result;
    } catch (error) {
      end(describeFailure(error));
      return undefined;
    }
  };
  const every = async (intervalMs: number, work: (turn: number) => Promise<unknown>): Promise<void> => {
    for (let turn = 0; !stopping.signal.aborted; turn += 1) {
      const working = work(turn).finally(() => open.delete(working));
      open.add(working);
      await sleep(intervalMs, undefined, { signal: stopping.signal }).catch(() => undefined);
    }
  };
  const loops = activitiesOf(environment, clients, timed).map(([intervalMs, work]) =>
    every(intervalMs, work),
  );
  return {
    samples,
    forget: () => void samples.splice(0),
    record: (sample) => void samples.push(sample),
    stop: async () => {
      stopping.abort();
      await Promise.all(loops);
      await Promise.allSettled(open);
      for (const client of Object.values(clients).flat()) if (client instanceof Client) client.close();
    },
  };
}

type Timed = <T>(kind: HonestClass, work: () => Promise<T>) => Promise<T | undefined>;

interface Clients {
  readonly auth: AuthServiceClient;
  readonly inventory: readonly InventoryServiceClient[];
  readonly payment: PaymentServiceClient;
  readonly revocation: RevocationServiceClient;
}

type Activity = readonly [intervalMs: number, work: (turn: number) => Promise<unknown>];

function activitiesOf(environment: Environment, clients: Clients, timed: Timed): readonly Activity[] {
  const { customer, services } = environment;
  const known = { token: customer.accessToken, timeoutMs: TIMEOUT_MS };
  const page = { pageSize: 10, pageToken: '' };
  const reads = [
    ...clients.inventory.map(
      (client) => () => ask(client.getItem.bind(client), { sku: READ_SKU }, known) as Promise<unknown>,
    ),
    () => ask(clients.auth.listSessions.bind(clients.auth), page, known),
    () => ask(clients.payment.listPayments.bind(clients.payment), { ...page, filter: '' }, known),
  ];
  return [
    [KNOWN_INTERVAL_MS, () => Promise.all(reads.map((read) => timed('known', read)))],
    [LOGIN_INTERVAL_MS, (turn) => logInAndRevoke(environment, clients, timed, turn)],
    [TOKEN_INTERVAL_MS, () => timed('token', () => fetchServiceToken(environment))],
    [RESERVE_INTERVAL_MS, (turn) => reserve(clients, timed, turn, known)],
    [
      PROBE_INTERVAL_MS,
      () => Promise.all(services.map(({ opsAddress }) => timed('probe', () => probe(opsAddress)))),
    ],
  ];
}

async function logInAndRevoke(
  { honest, operator }: Environment,
  { auth, inventory, revocation }: Clients,
  timed: Timed,
  turn: number,
): Promise<void> {
  const account = honest[turn % honest.length];
  const client = inventory[turn % inventory.length];
  if (account === undefined || client === undefined) return;
  const request = { ...account, audiences: [], scopes: [], deviceName: 'honest' };
  const login = await timed('login', () => ask(auth.login.bind(auth), request, { timeoutMs: TIMEOUT_MS }));
  if (login?.session === undefined) return;
  const { sessionId } = login.session;
  await timed('new', () =>
    ask(client.getItem.bind(client), { sku: READ_SKU }, { token: login.accessToken, timeoutMs: TIMEOUT_MS }),
  );
  await timed('revoke', async () => {
    const answer = await ask(
      revocation.revoke.bind(revocation),
      {
        target: { $case: 'sessionId', value: sessionId },
        reason: 'floods',
        wait: RevokeWait.REVOKE_WAIT_KNOWN_INSTANCES,
        targets: [],
        dryRun: false,
        fences: [],
      },
      { token: operator.accessToken, timeoutMs: REVOKE_TIMEOUT_MS },
    );
    return answer;
  });
}

async function fetchServiceToken({ system, paymentKey }: Environment): Promise<void> {
  const source = createServiceTokenSource({
    address: system.auth.address,
    credentials: system.credentials,
    clientId: 'payment',
    clientKey: paymentKey,
    issuer: system.issuer,
    audiences: ['auth'],
  });
  try {
    await source.get();
  } finally {
    source.close();
  }
}

async function reserve(
  { inventory }: Clients,
  timed: Timed,
  turn: number,
  known: { readonly token: string; readonly timeoutMs: number },
): Promise<void> {
  const client = inventory[turn % inventory.length];
  if (client === undefined) return;
  await timed('reserve', async () => {
    const { reservation } = await ask(
      client.reserveStock.bind(client),
      {
        lines: [{ sku: POPULAR_SKU, quantity: 1n }],
        timeToLive: { seconds: 60n, nanos: 0 },
        requestId: randomUUID(),
      },
      known,
    );
    const reservationId = reservation?.reservationId ?? '';
    await ask(client.releaseReservation.bind(client), { reservationId, requestId: randomUUID() }, known);
  });
}

/** `/livez`, as an orchestrator asks: over a new connection, with little patience. */
async function probe(opsAddress: string): Promise<void> {
  await new Promise<void>((resolve, reject) => {
    const probing = request(
      `http://${opsAddress}/livez`,
      { agent: false, timeout: PROBE_TIMEOUT_MS, signal: AbortSignal.timeout(PROBE_TIMEOUT_MS) },
      (response) => {
        response.resume();
        response.on('error', reject);
        response.on('end', () =>
          response.statusCode === 200
            ? resolve()
            : reject(new Error(`/livez answered ${response.statusCode}`)),
        );
      },
    );
    probing.on('error', reject);
    probing.end();
  });
}

function describeFailure(error: unknown): Omit<Sample, 'kind' | 'startedMs' | 'ms'> {
  const { code, reason, message, retryAfterMs } = errorOf(error);
  // Details of deadlines differ in each message.
  const plain = code === status.DEADLINE_EXCEEDED ? 'no answer in time' : message;
  const text = reason || plain || (error instanceof Error ? error.message : String(error));
  return {
    failure: `${code} ${text}`.slice(0, FAILURE_CHARACTERS_MAX),
    limited: reason === LIMITED && retryAfterMs !== undefined,
    stale: reason === STALE,
  };
}
