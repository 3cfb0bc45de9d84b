/**
 * A peer that shares no generated code with the servers: it reads the `.proto` files by itself, speaks to
 * every service, and understands the details of their errors.
 */

import { randomUUID } from 'node:crypto';
import { fileURLToPath } from 'node:url';
import type { ClientReadableStream, ServiceError } from '@grpc/grpc-js';
import { Client, credentials, Metadata, status } from '@grpc/grpc-js';
import type { MessageTypeDefinition, PackageDefinition, ServiceDefinition } from '@grpc/proto-loader';
import { loadSync } from '@grpc/proto-loader';
import { expect } from 'chai';
import type { System } from '../../scripts/system/system.js';
import { rejectionOf } from '../support/outcomes.js';
import { sharedSystem } from '../support/system.js';

const START_TIMEOUT_MS = 120_000;
const CALL_TIMEOUT_MS = 10_000;
const PROTO_FOLDERS = ['../../proto', '../../interceptors/proto'].map((path) =>
  fileURLToPath(new URL(path, import.meta.url)),
);
const SCHEMA: PackageDefinition = loadSync(
  [
    'auth/v1/auth_service.proto',
    'inventory/v1/inventory_service.proto',
    'payment/v1/payment_service.proto',
    'portcullis/revocation/v1/revocation.proto',
    'grpc/health/v1/health.proto',
    'google/rpc/status.proto',
    'google/rpc/error_details.proto',
  ],
  { includeDirs: PROTO_FOLDERS, keepCase: true, longs: String, enums: String, defaults: true, oneofs: true },
);

/** A decoded message: names as in the `.proto`, integers of 64 bits as text. */
type Message = { readonly [field: string]: unknown };

describe('a peer without generated code', () => {
  let system: System;
  const open = new Map<string, Client>();

  before(async function () {
    this.timeout(START_TIMEOUT_MS);
    system = await sharedSystem();
  });

  after(() => {
    for (const client of open.values()) client.close();
  });

  it('logs in, reads, reserves, pays and lists its payments', async () => {
    const token = await logIn('alice');
    const { items } = await call(inventory(), 'inventory.v1.InventoryService', 'ListItems', {}, token);
    expect(items).to.be.an('array').that.is.not.empty;
    const line = { sku: 'MUG-03', quantity: '2' };
    const reserve = { lines: [line], time_to_live: { seconds: '60' }, request_id: randomUUID() };
    const { reservation } = await call(
      inventory(),
      'inventory.v1.InventoryService',
      'ReserveStock',
      reserve,
      token,
    );
    expect(reservation).to.deep.include({ state: 'RESERVATION_STATE_ACTIVE' });
    const checkout = { account_id: system.accounts?.alice, lines: [line], request_id: randomUUID() };
    const { payment } = await call(
      system.payment.address,
      'payment.v1.PaymentService',
      'Checkout',
      checkout,
      token,
    );
    expect(payment).to.deep.include({
      state: 'PAYMENT_STATE_CAPTURED',
      amount: { minor_units: '1900', currency_code: 'EUR' },
    });
    const { payments } = await call(
      system.payment.address,
      'payment.v1.PaymentService',
      'ListPayments',
      {},
      token,
    );
    expect(payments).to.deep.include(payment);
  });

  it('reads a stream until its session is revoked', async () => {
    const token = await logIn('bob');
    const olga = await logIn('olga');
    const stream = watch(token);
    const first = await new Promise<Message>((resolve) => stream.once('data', resolve));
    expect(first).to.include({ sku: 'MUG-03' });
    const ended = new Promise<ServiceError>((resolve) => stream.once('error', resolve));
    const { sessions } = await call(
      system.auth.address,
      'auth.v1.AuthService',
      'ListSessions',
      { page_size: 200 },
      token,
    );
    const current = (sessions as Message[]).find((session) => session['current'] === true);
    const revoke = { session_id: current?.['session_id'], reason: 'test' };
    await call(system.auth.address, 'portcullis.revocation.v1.RevocationService', 'Revoke', revoke, olga);
    const error = await ended;
    expect(error.code).to.equal(status.UNAUTHENTICATED);
    expect(detailsOf(error)[0]).to.include({ reason: 'TOKEN_REVOKED', domain: 'portcullis' });
  });

  it('receives the invalid fields of a request', async () => {
    const token = await logIn('alice');
    const error = await receivedErrorOf(
      call(
        inventory(),
        'inventory.v1.InventoryService',
        'ReserveStock',
        { lines: [{ sku: 'MUG-03', quantity: '0' }], request_id: randomUUID() },
        token,
      ),
    );
    expect(error.code).to.equal(status.INVALID_ARGUMENT);
    const violations = detailsOf(error).flatMap((detail) => (detail['field_violations'] as Message[]) ?? []);
    expect(violations.map((violation) => violation['field'])).to.deep.equal(['lines[0].quantity']);
  });

  it('reads the health of every service without a token', async () => {
    for (const address of [system.auth.address, inventory(), system.payment.address]) {
      const answer = await call(address, 'grpc.health.v1.Health', 'Check', { service: '' });
      expect(answer).to.deep.equal({ status: 'SERVING' });
    }
  });

  it('is rejected with a token that it has changed', async () => {
    const token = await logIn('alice');
    const forged = `${token.slice(0, -8)}AAAAAAAA`;
    const error = await receivedErrorOf(
      call(inventory(), 'inventory.v1.InventoryService', 'ListItems', {}, forged),
    );
    expect(error.code).to.equal(status.UNAUTHENTICATED);
    expect(detailsOf(error)[0]).to.include({ reason: 'TOKEN_INVALID', domain: 'portcullis' });
  });

  function inventory(): string {
    return system.inventory[0].address;
  }

  function clientFor(address: string): Client {
    const known = open.get(address);
    if (known !== undefined) return known;
    const made = new Client(address, credentials.createInsecure());
    open.set(address, made);
    return made;
  }

  async function logIn(name: 'alice' | 'bob' | 'olga'): Promise<string> {
    const { username, password } = system.users[name];
    const login = await call(system.auth.address, 'auth.v1.AuthService', 'Login', { username, password });
    return String(login['access_token']);
  }

  async function call(
    address: string,
    service: string,
    method: string,
    request: Message,
    token?: string,
  ): Promise<Message> {
    const { path, requestSerialize, responseDeserialize } = methodOf(service, method);
    const deadline = Date.now() + CALL_TIMEOUT_MS;
    return await new Promise((resolve, reject) => {
      clientFor(address).makeUnaryRequest(
        path,
        requestSerialize,
        responseDeserialize,
        request,
        metadataWith(token),
        { deadline },
        (error, response) => (error === null && response !== undefined ? resolve(response) : reject(error)),
      );
    });
  }

  function watch(token: string): ClientReadableStream<Message> {
    const { path, requestSerialize, responseDeserialize } = methodOf(
      'inventory.v1.InventoryService',
      'WatchStock',
    );
    const deadline = Date.now() + CALL_TIMEOUT_MS;
    return clientFor(inventory()).makeServerStreamRequest(
      path,
      requestSerialize,
      responseDeserialize,
      { skus: ['MUG-03'] },
      metadataWith(token),
      { deadline },
    );
  }
});

function metadataWith(token: string | undefined): Metadata {
  const metadata = new Metadata();
  if (token !== undefined) metadata.set('authorization', `Bearer ${token}`);
  return metadata;
}

function methodOf(service: string, method: string) {
  const found = (SCHEMA[service] as ServiceDefinition | undefined)?.[method];
  if (found === undefined) throw new TypeError(`${service}/${method} is not in the schema`);
  return {
    path: found.path,
    requestSerialize: (request: Message) => found.requestSerialize(request),
    responseDeserialize: (bytes: Buffer): Message => found.responseDeserialize(bytes) as Message,
  };
}

function decode(message: string, bytes: Buffer): Message {
  const type = SCHEMA[message] as MessageTypeDefinition<object, object> | undefined;
  if (type === undefined) throw new TypeError(`${message} is not in the schema`);
  return type.deserialize(bytes) as Message;
}

/** The details of an error, each read as the type that it names. */
function detailsOf(error: ServiceError): Message[] {
  const [bytes] = error.metadata.get('grpc-status-details-bin');
  if (!(bytes instanceof Buffer)) return [];
  const { details } = decode('google.rpc.Status', bytes);
  return (details as { type_url: string; value: Buffer }[]).map(({ type_url, value }) =>
    decode(type_url.slice(type_url.lastIndexOf('/') + 1), value),
  );
}

async function receivedErrorOf(answer: Promise<unknown>): Promise<ServiceError> {
  return (await rejectionOf(answer)) as ServiceError;
}
