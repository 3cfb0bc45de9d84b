/** PaymentService over a real socket: messages, identities and errors as clients see them. */
import { randomUUID } from 'node:crypto';
import {
  type CallOptions,
  credentials,
  type ServiceError as GrpcError,
  Metadata,
  Server,
  ServerCredentials,
  status,
} from '@grpc/grpc-js';
import { createGuard, type Guard, principalOf } from '@portcullis/guard';
import { expect } from 'chai';
import {
  type CheckoutResponse,
  EntryKind,
  PaymentServiceClient,
  PaymentServiceService,
  PaymentState,
  protoMetadata,
} from '../../../proto/gen/payment/v1/payment_service.js';
import { createHandlers } from '../../../services/payment/handlers.js';
import { ISSUER, TestIssuer } from '../../support/issuer.js';
import { refusalOf } from '../../support/outcomes.js';
import { until } from '../../support/waiting.js';
import { type Instance, openFreshInstance } from './instance.js';
import { Warehouse } from './warehouse.js';

const CUSTOMER = { scope: 'payment.read payment.pay inventory.reserve', roles: ['customer'] };
const OPERATOR = { scope: `${CUSTOMER.scope} payment.manage`, roles: ['operator'] };

type Method<Request, Response> = (
  request: Request,
  metadata: Metadata,
  options: CallOptions,
  callback: (error: GrpcError | null, response: Response) => void,
) => unknown;

describe('PaymentService', () => {
  const warehouse = new Warehouse();
  let instance: Instance;
  let issuer: TestIssuer;
  let guard: Guard;
  let server: Server;
  let client: PaymentServiceClient;

  before(async () => {
    warehouse.stock('LAMP', { minorUnits: 250n, currencyCode: 'EUR' });
    instance = await openFreshInstance();
    issuer = await TestIssuer.create();
    guard = await createGuard({
      log: 'silent',
      issuer: ISSUER,
      audience: 'payment',
      auth: { source: issuer.source },
    });
    server = new Server({ interceptors: [guard.interceptor] });
    const inventoryFor = (call: { metadata: Metadata }) => warehouse.for(principalOf(call).subject);
    const handlers = createHandlers({ ...instance, inventoryFor });
    guard.addService(server, PaymentServiceService, protoMetadata, handlers);
    const port = await new Promise<number>((resolve, reject) => {
      server.bindAsync('127.0.0.1:0', ServerCredentials.createInsecure(), (error, bound) =>
        error === null ? resolve(bound) : reject(error),
      );
    });
    client = new PaymentServiceClient(`127.0.0.1:${port}`, credentials.createInsecure());
    await guard.ready;
  });
  after(async () => {
    client.close();
    server.forceShutdown();
    await guard.close();
    await instance.close();
  });

  function call<Request, Response>(
    method: Method<Request, Response>,
    request: Request,
    token: string,
  ): Promise<Response> {
    const metadata = new Metadata();
    metadata.set('authorization', `Bearer ${token}`);
    return new Promise((resolve, reject) => {
      const deadline = Date.now() + 10_000;
      method.call(client, request, metadata, { deadline }, (error, response) =>
        error === null ? resolve(response) : reject(error),
      );
    });
  }

  const tokenOf = (sub: string, rights: object) => issuer.token({ aud: ['payment'], sub, ...rights });

  it('opens an account, deposits, checks out, and returns the account and its entries', async () => {
    const userId = randomUUID();
    const token = await tokenOf(userId, CUSTOMER);
    const operator = await tokenOf('olga', OPERATOR);
    const open = { currencyCode: 'EUR', requestId: 'open' };
    const { account } = await call(client.openAccount, open, token);
    const accountId = account?.accountId ?? '';
    expect(account).to.deep.include({ userId, balance: { minorUnits: 0n, currencyCode: 'EUR' } });

    const amount = { minorUnits: 1_000n, currencyCode: 'EUR' };
    const deposited = await call(client.deposit, { accountId, amount, requestId: 'fill' }, operator);
    expect(deposited.account?.balance).to.deep.equal(amount);

    const lines = [{ sku: 'LAMP', quantity: 2n }];
    const { payment } = await call(client.checkout, { accountId, lines, requestId: 'buy' }, token);
    expect(payment).to.deep.include({
      accountId,
      lines,
      state: PaymentState.PAYMENT_STATE_CAPTURED,
      amount: { minorUnits: 500n, currencyCode: 'EUR' },
      failureReason: '',
    });
    const paymentId = payment?.paymentId ?? '';
    expect((await call(client.getPayment, { paymentId }, token)).payment).to.deep.equal(payment);
    const page = { pageSize: 0, pageToken: '', filter: '' };
    const listed = await call(client.listPayments, page, token);
    expect(listed).to.deep.equal({ payments: [payment], nextPageToken: '' });

    const { entries } = await call(client.listEntries, { accountId, ...page }, token);
    expect(
      entries.map(({ kind, amount: moved, paymentId: of }) => [kind, moved?.minorUnits, of]),
    ).to.deep.equal([
      [EntryKind.ENTRY_KIND_CAPTURE, -500n, paymentId],
      [EntryKind.ENTRY_KIND_DEPOSIT, 1_000n, ''],
    ]);
    const after = await call(client.getAccount, { accountId }, token);
    expect(after.account?.balance?.minorUnits).to.equal(500n);
    expect(after.account?.held?.minorUnits).to.equal(0n);
  });

  it('returns a failed payment with its reason and without a price', async () => {
    const token = await tokenOf(randomUUID(), CUSTOMER);
    const { account } = await call(client.openAccount, { currencyCode: 'EUR', requestId: 'open' }, token);
    const accountId = account?.accountId ?? '';
    const order = { accountId, lines: [{ sku: 'GHOST', quantity: 1n }], requestId: 'ghost' };
    const refusal = await refusalOf(call(client.checkout, order, token));
    expect(refusal).to.deep.include({ code: status.NOT_FOUND, reason: 'NOT_FOUND' });
    const { payments } = await call(client.listPayments, { pageSize: 0, pageToken: '', filter: '' }, token);
    expect(payments[0]).to.deep.include({
      state: PaymentState.PAYMENT_STATE_FAILED,
      failureReason: 'NOT_FOUND',
      amount: undefined,
      reservationId: '',
    });
  });

  it('reports invalid fields by their names in the schema', async () => {
    const token = await tokenOf(randomUUID(), CUSTOMER);
    const order = { accountId: '', lines: [{ sku: 'LAMP', quantity: 0n }], requestId: '' };
    const refusal = await refusalOf(call(client.checkout, order, token));
    expect(refusal).to.deep.include({ code: status.INVALID_ARGUMENT, reason: 'FIELD_INVALID' });
    expect(refusal.violations.map(({ field }) => field)).to.deep.equal([
      'account_id',
      'lines[0].quantity',
      'request_id',
    ]);
  });

  it('lets only operators deposit and read accounts of others', async () => {
    const owner = await tokenOf(randomUUID(), CUSTOMER);
    const { account } = await call(client.openAccount, { currencyCode: 'EUR', requestId: 'open' }, owner);
    const accountId = account?.accountId ?? '';
    const amount = { minorUnits: 1n, currencyCode: 'EUR' };
    const self = await refusalOf(call(client.deposit, { accountId, amount, requestId: 'me' }, owner));
    expect(self.code).to.equal(status.PERMISSION_DENIED);
    const stranger = await tokenOf(randomUUID(), CUSTOMER);
    const foreign = await refusalOf(call(client.getAccount, { accountId }, stranger));
    expect(foreign).to.deep.include({ code: status.NOT_FOUND, reason: 'NOT_FOUND' });
    const operator = await tokenOf('olga', OPERATOR);
    expect((await call(client.getAccount, { accountId }, operator)).account).to.deep.equal(account);
    const roleOnly = await tokenOf('olga', { ...CUSTOMER, roles: ['operator'] });
    expect(await refusalOf(call(client.getAccount, { accountId }, roleOnly))).to.deep.equal(foreign);
  });

  it('lets only operators refund, rejects a late cancellation by the owner, and lists the refund', async () => {
    const token = await tokenOf(randomUUID(), CUSTOMER);
    const operator = await tokenOf('olga', OPERATOR);
    const { account } = await call(client.openAccount, { currencyCode: 'EUR', requestId: 'open' }, token);
    const accountId = account?.accountId ?? '';
    const amount = { minorUnits: 1_000n, currencyCode: 'EUR' };
    await call(client.deposit, { accountId, amount, requestId: randomUUID() }, operator);
    const order = { accountId, lines: [{ sku: 'LAMP', quantity: 2n }], requestId: 'buy' };
    const { payment } = await call(client.checkout, order, token);
    expect(payment?.refunded).to.deep.equal({ minorUnits: 0n, currencyCode: 'EUR' });
    const paymentId = payment?.paymentId ?? '';
    const refund = {
      paymentId,
      amount: { minorUnits: 120n, currencyCode: 'EUR' },
      reason: 'scratched',
      requestId: 'refund',
    };
    const refused = await refusalOf(call(client.refundPayment, refund, token));
    expect(refused.code).to.equal(status.PERMISSION_DENIED);
    const refunded = await call(client.refundPayment, refund, operator);
    expect(refunded.payment?.refunded?.minorUnits).to.equal(120n);
    const tooMuch = { ...refund, amount: { minorUnits: 381n, currencyCode: 'EUR' }, requestId: 'more' };
    expect(await refusalOf(call(client.refundPayment, tooMuch, operator))).to.deep.include({
      code: status.FAILED_PRECONDITION,
      reason: 'REFUND_EXCEEDS_PAYMENT',
    });
    const late = await refusalOf(call(client.cancelPayment, { paymentId, requestId: 'cancel' }, token));
    expect(late).to.deep.include({
      code: status.FAILED_PRECONDITION,
      reason: 'PAYMENT_NOT_CANCELLABLE',
    });
    const filter = `kind = REFUND AND payment_id = "${paymentId}"`;
    const entries = { accountId, pageSize: 0, pageToken: '', filter };
    const listed = await call(client.listEntries, entries, token);
    expect(listed.entries.map(({ kind, amount: moved }) => [kind, moved?.minorUnits])).to.deep.equal([
      [EntryKind.ENTRY_KIND_REFUND, 120n],
    ]);
    const bad = await refusalOf(call(client.listEntries, { ...entries, filter: 'kind = GIFT' }, token));
    expect(bad.violations.map(({ field }) => field)).to.deep.equal(['filter']);
  });

  it('takes the price from inventory, and ignores a price that the client sends', async () => {
    const token = await tokenOf(randomUUID(), CUSTOMER);
    const operator = await tokenOf('olga', OPERATOR);
    const { account } = await call(client.openAccount, { currencyCode: 'EUR', requestId: 'open' }, token);
    const accountId = account?.accountId ?? '';
    const amount = { minorUnits: 1_000n, currencyCode: 'EUR' };
    await call(client.deposit, { accountId, amount, requestId: randomUUID() }, operator);
    const order = { accountId, lines: [{ sku: 'LAMP', quantity: 1n }], requestId: 'cheap' };
    const { path, requestSerialize, responseDeserialize } = PaymentServiceService.checkout;
    // Fields 3, 4 and 15 of the order, which the schema does not have: a price, a total and a currency.
    const forged = Buffer.from([0x20, 0x01, 0x7a, 0x03, 0x45, 0x55, 0x52]);
    const metadata = new Metadata();
    metadata.set('authorization', `Bearer ${token}`);
    const { payment } = await new Promise<CheckoutResponse>((resolve, reject) => {
      const serialize = (request: typeof order) => Buffer.concat([requestSerialize(request), forged]);
      client.makeUnaryRequest(path, serialize, responseDeserialize, order, metadata, (error, response) =>
        error === null && response !== undefined ? resolve(response) : reject(error),
      );
    });
    expect(payment?.amount).to.deep.equal({ minorUnits: 250n, currencyCode: 'EUR' });
  });

  it('rejects a request_id that is not UTF-8', async () => {
    const token = await tokenOf(randomUUID(), CUSTOMER);
    const { path, requestSerialize, responseDeserialize } = PaymentServiceService.openAccount;
    const metadata = new Metadata();
    metadata.set('authorization', `Bearer ${token}`);
    for (const byte of [0xff, 0xfe]) {
      const request = { currencyCode: 'EUR', requestId: 'x' };
      const spoil = (sent: typeof request) => {
        const bytes = requestSerialize(sent);
        bytes[bytes.length - 1] = byte;
        return bytes;
      };
      const failing = new Promise((resolve, reject) => {
        client.makeUnaryRequest(path, spoil, responseDeserialize, request, metadata, (error, response) =>
          error === null ? resolve(response) : reject(error),
        );
      });
      const refusal = await refusalOf(failing);
      expect(refusal.violations.map(({ field }) => field)).to.deep.equal(['request_id']);
    }
  });

  it('moves no money of a buyer whose session is revoked in the middle of a checkout', async () => {
    const [sub, sid] = [randomUUID(), randomUUID()];
    const token = await issuer.token({ aud: ['payment'], sub, sid, ...CUSTOMER });
    const fresher = await tokenOf(sub, CUSTOMER);
    const { account } = await call(client.openAccount, { currencyCode: 'EUR', requestId: 'open' }, token);
    const accountId = account?.accountId ?? '';
    const amount = { minorUnits: 1_000n, currencyCode: 'EUR' };
    await call(
      client.deposit,
      { accountId, amount, requestId: randomUUID() },
      await tokenOf('olga', OPERATOR),
    );
    warehouse.trouble = async (method, moment) => {
      if (method !== 'reserve' || moment !== 'after') return;
      const { sequence } = issuer.revokeSession(sid);
      guard.syncNow();
      await until(async () => guard.state().applied >= sequence);
    };
    const order = { accountId, lines: [{ sku: 'LAMP', quantity: 2n }], requestId: 'revoked' };
    const refusal = await refusalOf(call(client.checkout, order, token));
    warehouse.trouble = () => {};
    expect(refusal).to.deep.include({ code: status.UNAUTHENTICATED, reason: 'TOKEN_REVOKED' });

    // The call ended at once; the goods are released in the background.
    const page = { pageSize: 0, pageToken: '', filter: '' };
    const reasonOf = async () => (await call(client.listPayments, page, fresher)).payments[0]?.failureReason;
    await until(async () => (await reasonOf()) !== '');
    expect(await reasonOf()).to.equal('TOKEN_REVOKED');
    const { account: now } = await call(client.getAccount, { accountId }, fresher);
    expect(now).to.deep.include({ balance: amount, held: { minorUnits: 0n, currencyCode: 'EUR' } });
    expect(warehouse.item('LAMP').reserved).to.equal(0n);
  });
});
