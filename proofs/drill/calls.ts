/** The calls that the drill makes: to every instance, of every kind that it serves. */

import { randomUUID } from 'node:crypto';
import type { ChannelOptions, ClientDuplexStream, ClientReadableStream, ServiceError } from '@grpc/grpc-js';
import { Client, credentials, status } from '@grpc/grpc-js';
import { errorOf } from '@portcullis/guard/client';
import { AuthServiceClient } from '../../proto/gen/auth/v1/auth_service.js';
import { PolicyServiceClient } from '../../proto/gen/auth/v1/policy_service.js';
import { UserServiceClient } from '../../proto/gen/auth/v1/user_service.js';
import { InventoryServiceClient } from '../../proto/gen/inventory/v1/inventory_service.js';
import { PaymentServiceClient } from '../../proto/gen/payment/v1/payment_service.js';
import { RevocationServiceClient } from '../../proto/gen/portcullis/revocation/v1/revocation.js';
import { ask, tokenMetadata } from '../../scripts/system/calls.js';
import { ECHO } from './echo-service.js';
import type { Environment, InstanceName } from './environment.js';
import type { Outcome } from './revocation-oracle.js';

/** A client that reconnects soon after an instance was unreachable. */
const CHANNEL_OPTIONS: ChannelOptions = {
  'grpc.initial_reconnect_backoff_ms': 50,
  'grpc.min_reconnect_backoff_ms': 50,
  'grpc.max_reconnect_backoff_ms': 200,
  // Without a pool of its own, clients of one address share a connection and its reconnect pauses.
  'grpc.use_local_subchannel_pool': 1,
};

/** The item whose stock changes during the drill. */
export const MOVING_SKU = 'MUG-03';

/** The kind of principal of a token; methods differ in the kinds that they admit. */
export type CallerKind = 'user' | 'service' | 'delegate';

/** A unary call, or a client stream of one message. */
export interface Question {
  readonly instance: InstanceName;
  readonly method: string;
  readonly callers: readonly CallerKind[];
  readonly allowStale?: boolean;
  ask(token: string, timeoutMs: number): Promise<Outcome>;
}

/** A stream that stays open until it is cut. */
export interface OpenStream {
  /** Called with the earliest moment at which the server can have admitted this message; `undefined` when unknown. */
  onMessage(listener: (notBeforeMs: number | undefined) => void): void;
  readonly ended: Promise<Outcome>;
  /** Sends a timestamp, for kinds of streams that can. */
  send(moment: number): void;
  cancel(): void;
}

/** A kind of stream that one instance serves. */
export interface StreamKind {
  readonly instance: InstanceName;
  readonly method: string;
  readonly callers: readonly CallerKind[];
  /** @param name - identifies a client stream to the echo service that reports its messages */
  open(token: string, name: string): OpenStream;
}

/** An instance that serves the drill's echo. */
interface Echo {
  readonly instance: InstanceName;
  readonly client: Client;
}

/** The clients of all instances. */
export interface Clients {
  readonly auth: AuthServiceClient;
  readonly revocation: RevocationServiceClient;
  readonly policy: PolicyServiceClient;
  readonly users: UserServiceClient;
  readonly inventory: readonly [InventoryServiceClient, InventoryServiceClient];
  readonly payment: PaymentServiceClient;
  readonly echo: Client;
  /** The echo, and the servers behind gates, which serve the same methods. */
  readonly echoes: readonly Echo[];
  close(): void;
}

/** Connects to all instances directly, not through the links: faults never affect the way from clients to instances. */
export function connectTo({ processes, gates }: Environment): Clients {
  const plain = credentials.createInsecure();
  const auth = new AuthServiceClient(processes.auth.address, plain, CHANNEL_OPTIONS);
  const revocation = new RevocationServiceClient(processes.auth.address, plain, CHANNEL_OPTIONS);
  const policy = new PolicyServiceClient(processes.auth.address, plain, CHANNEL_OPTIONS);
  const users = new UserServiceClient(processes.auth.address, plain, CHANNEL_OPTIONS);
  const inventory = [
    new InventoryServiceClient(processes['inventory-1'].address, plain, CHANNEL_OPTIONS),
    new InventoryServiceClient(processes['inventory-2'].address, plain, CHANNEL_OPTIONS),
  ] as const;
  const payment = new PaymentServiceClient(processes.payment.address, plain, CHANNEL_OPTIONS);
  const echo = new Client(processes.echo.address, plain, CHANNEL_OPTIONS);
  const echoes: readonly Echo[] = [
    { instance: 'echo', client: echo },
    ...gates.map(({ name, process }) => ({
      instance: name,
      client: new Client(process.address, plain, CHANNEL_OPTIONS),
    })),
  ];
  return {
    auth,
    revocation,
    policy,
    users,
    inventory,
    payment,
    echo,
    echoes,
    close() {
      for (const client of [auth, revocation, policy, users, ...inventory, payment]) client.close();
      for (const { client } of echoes) client.close();
    },
  };
}

/** All unary calls, at every instance. */
export function questionsOf({ auth, inventory, payment, echoes }: Clients): Question[] {
  const page = { pageSize: 1, pageToken: '', filter: '' };
  const allKinds = ['user', 'service', 'delegate'] as const;
  const [one, two] = inventory;
  const questions: Question[] = [
    {
      instance: 'auth',
      method: 'ListSessions',
      callers: ['user'],
      ask: (token, timeoutMs) => outcomeOf(ask(auth.listSessions.bind(auth), page, { token, timeoutMs })),
    },
    {
      instance: 'payment',
      method: 'ListPayments',
      callers: ['user'],
      ask: (token, timeoutMs) =>
        outcomeOf(ask(payment.listPayments.bind(payment), page, { token, timeoutMs })),
    },
    ...echoes.flatMap(({ instance, client }): Question[] => [
      {
        instance,
        method: 'Unary',
        callers: allKinds,
        ask: (token, timeoutMs) => outcomeOf(askEcho(client, 'Unary', { token, timeoutMs })),
      },
      {
        instance,
        method: 'ClientStream',
        callers: allKinds,
        ask: (token, timeoutMs) => outcomeOf(streamOnce(client, token, timeoutMs)),
      },
    ]),
  ];
  for (const [instance, client] of [
    ['inventory-1', one],
    ['inventory-2', two],
  ] as const) {
    questions.push(
      {
        instance,
        method: 'GetReservation',
        callers: ['user'],
        ask: (token, timeoutMs) =>
          outcomeOf(
            ask(client.getReservation.bind(client), { reservationId: randomUUID() }, { token, timeoutMs }),
            // No such reservation exists, which only the handler can find out.
            status.NOT_FOUND,
          ),
      },
      {
        instance,
        method: 'ListItems',
        callers: allKinds,
        allowStale: true,
        ask: (token, timeoutMs) => outcomeOf(ask(client.listItems.bind(client), page, { token, timeoutMs })),
      },
    );
  }
  return questions;
}

/** All kinds of streams, at every instance. @param movedAt - when the drill requested this stock change */
export function streamKindsOf(
  { inventory, echoes }: Clients,
  movedAt: (onHand: bigint) => number | undefined,
): StreamKind[] {
  const allKinds = ['user', 'service', 'delegate'] as const;
  const [one, two] = inventory;
  const watch = (instance: InstanceName, client: InventoryServiceClient): StreamKind => ({
    instance,
    method: 'WatchStock',
    callers: allKinds,
    open: (token) => {
      const stream = client.watchStock({ skus: [MOVING_SKU], resumeToken: '' }, tokenMetadata({ token }));
      return readingStream(stream, ({ onHand }) => movedAt(onHand));
    },
  });
  return [
    watch('inventory-1', one),
    watch('inventory-2', two),
    ...echoes.flatMap((echo) => echoStreamKinds(echo, allKinds)),
  ];
}

/** The streams of an echo, behind a guard or behind a gate. */
function echoStreamKinds({ instance, client }: Echo, callers: readonly CallerKind[]): StreamKind[] {
  return [
    {
      instance,
      method: 'ServerStream',
      callers,
      open: (token) => {
        const { path, requestSerialize, responseDeserialize } = ECHO.ServerStream;
        const metadata = tokenMetadata({ token });
        const request = Buffer.alloc(0);
        const stream = client.makeServerStreamRequest(
          path,
          requestSerialize,
          responseDeserialize,
          request,
          metadata,
        );
        return readingStream(stream, (message) => Number(message.toString()));
      },
    },
    {
      instance,
      method: 'Bidi',
      callers,
      open: (token) => {
        const { path, requestSerialize, responseDeserialize } = ECHO.Bidi;
        const metadata = tokenMetadata({ token });
        const stream = client.makeBidiStreamRequest(path, requestSerialize, responseDeserialize, metadata);
        return {
          ...readingStream(stream, (message) => Number(message.toString())),
          send: (moment) => void stream.write(Buffer.from(String(moment))),
        };
      },
    },
    {
      instance,
      method: 'ClientStream',
      callers,
      open: (token, name) => pour(client, token, name),
    },
  ];
}

/** The last timestamp that the echo's handler received on each client stream, by name. */
export async function askWitness(echo: Client): Promise<Readonly<Record<string, number>>> {
  const answer = await askEcho(echo, 'Witness', {});
  return JSON.parse(answer.toString()) as Record<string, number>;
}

/** Blocks the echo's event loop. */
export async function blockEcho(echo: Client, forMs: number): Promise<void> {
  await askEcho(echo, 'Block', { text: String(forMs), timeoutMs: forMs + 10_000 });
}

/** Sets the echo's wall clock back; forward when the time is below zero. */
export async function setEchoBack(echo: Client, byMs: number): Promise<void> {
  await askEcho(echo, 'SetBack', { text: String(byMs), timeoutMs: 10_000 });
}

/** Sets the echo's wall clock back and lets its machine sleep for the same time, repeatedly. @returns begin and end */
export async function putEchoToSleep(
  echo: Client,
  { forMs, times }: { forMs: number; times: number },
): Promise<{ readonly fromMs: number; readonly toMs: number }> {
  const text = JSON.stringify({ forMs, times });
  const answer = await askEcho(echo, 'Sleep', { text, timeoutMs: times * forMs + 10_000 });
  return JSON.parse(answer.toString()) as { fromMs: number; toMs: number };
}

/** How a call ended. @param handled - a status with which the handler itself answers */
async function outcomeOf(answer: Promise<unknown>, handled?: status): Promise<Outcome> {
  try {
    await answer;
    return { kind: 'admitted' };
  } catch (error) {
    return outcomeOfError(error, handled);
  }
}

function outcomeOfError(error: unknown, handled?: status): Outcome {
  const { code, reason, message } = errorOf(error);
  if (code === handled) return { kind: 'admitted' };
  if (code === status.UNAUTHENTICATED) return { kind: 'refused', reason };
  if (code === status.UNAVAILABLE) return { kind: 'unavailable', reason };
  if (code === status.DEADLINE_EXCEEDED || code === status.CANCELLED) return { kind: 'unanswered' };
  return { kind: 'other', what: `${status[code]} ${reason} ${message}` };
}

function askEcho(
  echo: Client,
  method: 'Unary' | 'Witness' | 'Block' | 'SetBack' | 'Sleep',
  { token, text = '', timeoutMs = 5_000 }: { token?: string; text?: string; timeoutMs?: number },
): Promise<Buffer> {
  const { path, requestSerialize, responseDeserialize } = ECHO[method];
  const metadata = tokenMetadata(token === undefined ? {} : { token });
  const options = { deadline: Date.now() + timeoutMs };
  return new Promise((resolve, reject) => {
    echo.makeUnaryRequest(
      path,
      requestSerialize,
      responseDeserialize,
      Buffer.from(text),
      metadata,
      options,
      settle(resolve, reject),
    );
  });
}

function streamOnce(echo: Client, token: string, timeoutMs: number): Promise<Buffer> {
  const { path, requestSerialize, responseDeserialize } = ECHO.ClientStream;
  const options = { deadline: Date.now() + timeoutMs };
  return new Promise((resolve, reject) => {
    const stream = echo.makeClientStreamRequest(
      path,
      requestSerialize,
      responseDeserialize,
      tokenMetadata({ token }),
      options,
      settle(resolve, reject),
    );
    stream.on('error', () => undefined);
    stream.end(Buffer.from(randomUUID()));
  });
}

function settle(resolve: (answer: Buffer) => void, reject: (error: Error) => void) {
  return (error: ServiceError | null, answer?: Buffer): void => {
    if (error === null) resolve(answer ?? Buffer.alloc(0));
    else reject(error);
  };
}

function pour(echo: Client, token: string, name: string): OpenStream {
  const { path, requestSerialize, responseDeserialize } = ECHO.ClientStream;
  const { promise: ended, resolve } = promiseOf<Outcome>();
  const stream = echo.makeClientStreamRequest(
    path,
    requestSerialize,
    responseDeserialize,
    tokenMetadata({ token }),
    (error) => resolve(error === null ? { kind: 'admitted' } : outcomeOfError(error)),
  );
  stream.on('error', () => undefined);
  stream.write(Buffer.from(name));
  return {
    // The stream returns nothing; the echo service reports which messages it received.
    onMessage: () => undefined,
    ended,
    send: (moment) => void stream.write(Buffer.from(String(moment))),
    cancel: () => stream.cancel(),
  };
}

function readingStream<Message>(
  stream: ClientReadableStream<Message> | ClientDuplexStream<Buffer, Message>,
  momentOf: (message: Message) => number | undefined,
): OpenStream {
  const { promise: ended, resolve } = promiseOf<Outcome>();
  stream.on('error', (error: Error) => resolve(outcomeOfError(error)));
  stream.on('end', () => setImmediate(resolve, { kind: 'admitted' }));
  return {
    onMessage: (listener) => void stream.on('data', (message: Message) => listener(momentOf(message))),
    ended,
    send: () => undefined,
    cancel: () => stream.cancel(),
  };
}

function promiseOf<T>(): { promise: Promise<T>; resolve: (value: T) => void } {
  let resolve: (value: T) => void = () => undefined;
  const promise = new Promise<T>((settled) => {
    resolve = settled;
  });
  return { promise, resolve };
}
