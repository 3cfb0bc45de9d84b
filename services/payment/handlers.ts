/** The methods of PaymentService: they map messages to the domain and back. */

import type { ServerUnaryCall } from '@grpc/grpc-js';
import { passFence, principalOf, type ServiceHandlers, signalOf, stillAllowed } from '@portcullis/guard';
import {
  type Account as AccountMessage,
  EntryKind as EntryKindMessage,
  type LedgerEntry as LedgerEntryMessage,
  type Payment as PaymentMessage,
  type PaymentServiceService,
  PaymentState as PaymentStateMessage,
} from '../../proto/gen/payment/v1/payment_service.js';
import type { Accounts } from './accounts.js';
import type { Caller } from './caller.js';
import type { Checkout } from './checkout.js';
import type { Inventory } from './inventory-port.js';
import type { Account, EntryKind, LedgerEntry } from './ledger.js';
import type { Payment, PaymentState, Payments } from './payments.js';
import type { Reversals } from './reversals.js';

/** Any call of this service. */
type Call = Pick<ServerUnaryCall<unknown, unknown>, 'metadata' | 'getDeadline'>;

interface HandlerDeps {
  readonly accounts: Accounts;
  readonly payments: Payments;
  readonly checkout: Checkout;
  readonly reversals: Reversals;
  /** Inventory on behalf of the call's user. */
  readonly inventoryFor: (call: Call) => Inventory;
}

/** Creates the handlers of PaymentService, to be added through the guard. */
export function createHandlers({
  accounts,
  payments,
  checkout,
  reversals,
  inventoryFor,
}: HandlerDeps): ServiceHandlers<PaymentServiceService> {
  return {
    openAccount: async (request, call) => {
      const account = await accounts.open(request, callerOf(call));
      return { account: accountMessageOf(account) };
    },
    getAccount: async ({ accountId }, call) => {
      const account = await accounts.get(accountId, callerOf(call));
      return { account: accountMessageOf(account) };
    },
    deposit: async (request, call) => {
      const account = await accounts.deposit(request, callerOf(call));
      return { account: accountMessageOf(account) };
    },
    listEntries: async (request, call) => {
      const { entries, nextPageToken } = await accounts.listEntries(request, callerOf(call));
      return { entries: entries.map(entryMessageOf), nextPageToken };
    },
    checkout: async (request, call) => {
      const buyer = { ...callerOf(call), inventory: inventoryFor(call) };
      const payment = await checkout.checkout(request, buyer);
      return { payment: paymentMessageOf(payment) };
    },
    refundPayment: async (request, call) => {
      const payment = await reversals.refund(request, callerOf(call));
      return { payment: paymentMessageOf(payment) };
    },
    cancelPayment: async (request, call) => {
      const payment = await reversals.cancel(request, callerOf(call));
      return { payment: paymentMessageOf(payment) };
    },
    getPayment: async ({ paymentId }, call) => {
      const payment = await payments.get(paymentId, callerOf(call));
      return { payment: paymentMessageOf(payment) };
    },
    listPayments: async (request, call) => {
      const { payments: page, nextPageToken } = await payments.list(request, callerOf(call));
      return { payments: page.map(paymentMessageOf), nextPageToken };
    },
  };
}

function callerOf(call: Call): Caller {
  const { id, scopes, clientId, sessionId, tokenId } = principalOf(call);
  return {
    // Identifies the user by issuer and subject: two issuers may have a user of the same name.
    subject: id,
    // By scope, not by role: a token of another issuer may have the role without the scope.
    isOperator: scopes.has('payment.manage'),
    clientId,
    sessionId,
    tokenId,
    signal: signalOf(call),
    stillAllowed: () => stillAllowed(call),
    passFence: (query) => passFence(call, query),
  };
}

function accountMessageOf(account: Account): AccountMessage {
  const { accountId, userId, currencyCode, balance, held, createTime } = account;
  return {
    accountId,
    userId,
    balance: { minorUnits: balance, currencyCode },
    held: { minorUnits: held, currencyCode },
    createTime,
  };
}

const ENTRY_KINDS = {
  DEPOSIT: EntryKindMessage.ENTRY_KIND_DEPOSIT,
  CAPTURE: EntryKindMessage.ENTRY_KIND_CAPTURE,
  REFUND: EntryKindMessage.ENTRY_KIND_REFUND,
} as const satisfies Record<EntryKind, EntryKindMessage>;

function entryMessageOf(entry: LedgerEntry): LedgerEntryMessage {
  return { ...entry, kind: ENTRY_KINDS[entry.kind], paymentId: entry.paymentId ?? '' };
}

const PAYMENT_STATES = {
  PENDING: PaymentStateMessage.PAYMENT_STATE_PENDING,
  CAPTURED: PaymentStateMessage.PAYMENT_STATE_CAPTURED,
  FAILED: PaymentStateMessage.PAYMENT_STATE_FAILED,
} as const satisfies Record<PaymentState, PaymentStateMessage>;

function paymentMessageOf(payment: Payment): PaymentMessage {
  const { paymentId, accountId, state, amount, refunded, lines, reservationId, failureReason } = payment;
  return {
    paymentId,
    accountId,
    state: PAYMENT_STATES[state],
    amount,
    lines: lines.map((line) => ({ ...line })),
    reservationId: reservationId ?? '',
    failureReason: failureReason ?? '',
    createTime: payment.createTime,
    updateTime: payment.updateTime,
    refunded,
  };
}
