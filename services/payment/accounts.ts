/** Accounts: opening them, putting money in, and reading what moved. */

import { invalidField, type ServiceError } from '@portcullis/guard/errors';
import { MINOR_UNITS_MAX, type Money } from '../common/money.js';
import { createViolations } from '../common/validation/violations.js';
import type { Caller } from './caller.js';
import { PaymentError } from './errors.js';
import { type Account, depositTransfer, type LedgerEntry, type LedgerTransaction } from './ledger.js';

/** A request that must take effect once, however often it is sent. */
export interface RepeatableRequest {
  readonly subject: string;
  readonly method: string;
  readonly requestId: string;
  /** What was asked for; the same request_id with another payload is refused. */
  readonly payload: string;
}

/** Which part of a list is asked for, as it came from the caller. */
export interface PageRequest {
  readonly pageSize: number;
  readonly pageToken: string;
  readonly filter: string;
}

/** What accounts need to be kept in. */
export interface AccountStore {
  /**
   * Does the work in one transaction, or returns what it returned the first time. `stillAllowed` is asked last
   * before the transaction commits.
   */
  changeAccountsOnce<T>(
    request: RepeatableRequest,
    stillAllowed: () => number,
    work: (ledger: LedgerTransaction) => Promise<T>,
  ): Promise<T>;
  findAccount(accountId: string): Promise<Account | undefined>;
  /**
   * The entries of an account, newest first.
   *
   * @throws ServiceError FIELD_INVALID for a page that cannot be
   */
  listEntries(
    accountId: string,
    page: PageRequest,
  ): Promise<{ entries: readonly LedgerEntry[]; nextPageToken: string }>;
}

/** What can be done with accounts. */
export interface Accounts {
  /**
   * Opens an account for the caller.
   *
   * @throws ServiceError FIELD_INVALID, ALREADY_EXISTS, REQUEST_ID_REUSED, REQUEST_IN_PROGRESS
   */
  open(request: { currencyCode: string; requestId: string }, caller: Caller): Promise<Account>;
  /**
   * One account of the caller; operators see all.
   *
   * @throws ServiceError FIELD_INVALID; NOT_FOUND whether it is missing or somebody else's
   */
  get(accountId: string, caller: Caller): Promise<Account>;
  /**
   * Puts money into any account; the access rule lets operators alone come here.
   *
   * @throws ServiceError FIELD_INVALID, NOT_FOUND, REQUEST_ID_REUSED, REQUEST_IN_PROGRESS, and why the caller is
   *   no longer allowed to
   */
  deposit(
    request: { accountId: string; amount: Money | undefined; requestId: string },
    caller: Caller,
  ): Promise<Account>;
  /**
   * What moved in one account of the caller, newest first; operators see all.
   *
   * @throws ServiceError FIELD_INVALID; NOT_FOUND whether it is missing or somebody else's
   */
  listEntries(
    request: { accountId: string } & PageRequest,
    caller: Caller,
  ): Promise<{ entries: readonly LedgerEntry[]; nextPageToken: string }>;
}

/** The accounts that a store keeps. */
export function createAccounts({ store }: { store: AccountStore }): Accounts {
  return {
    async open({ currencyCode, requestId }, caller) {
      const violations = createViolations();
      violations.requireCurrency('currency_code', currencyCode);
      violations.requireRequestId(requestId);
      violations.throwIfAny();
      const request = { subject: caller.subject, method: 'OpenAccount', requestId, payload: currencyCode };
      return await store.changeAccountsOnce(request, caller.stillAllowed, async (ledger) => {
        const account = await ledger.openAccount(caller.subject, currencyCode);
        if (account !== undefined) return account;
        throw new PaymentError('ALREADY_EXISTS', `you have an account in ${currencyCode} already`);
      });
    },

    async get(accountId, caller) {
      requireAccountId(accountId);
      return await visibleAccount(store, accountId, caller);
    },

    async deposit({ accountId, amount, requestId }, caller) {
      const given = requireDeposit({ accountId, amount, requestId });
      const payload = JSON.stringify([accountId, String(given.minorUnits), given.currencyCode]);
      const request = { subject: caller.subject, method: 'Deposit', requestId, payload };
      return await store.changeAccountsOnce(request, caller.stillAllowed, (ledger) =>
        depositLocked(ledger, accountId, given, caller.subject),
      );
    },

    async listEntries({ accountId, ...page }, caller) {
      requireAccountId(accountId);
      const account = await visibleAccount(store, accountId, caller);
      return await store.listEntries(account.accountId, page);
    },
  };
}

/** NOT_FOUND, in the same words whether the account is missing or somebody else's. */
export function accountNotFound(): ServiceError {
  return new PaymentError('NOT_FOUND', 'there is no such account');
}

function requireAccountId(accountId: string): void {
  const violations = createViolations();
  violations.requireUuid('account_id', accountId);
  violations.throwIfAny();
}

/** @returns the amount */
function requireDeposit(request: { accountId: string; amount: Money | undefined; requestId: string }): Money {
  const { accountId, amount, requestId } = request;
  const violations = createViolations();
  violations.requireUuid('account_id', accountId);
  if (amount === undefined) violations.require('amount', false, 'is required');
  else violations.requireAmount('amount', amount);
  violations.requireRequestId(requestId);
  violations.throwIfAny();
  if (amount === undefined) throw new TypeError('a deposit without an amount passed the checks');
  return amount;
}

async function visibleAccount(store: AccountStore, accountId: string, caller: Caller): Promise<Account> {
  const account = await store.findAccount(accountId);
  if (account === undefined) throw accountNotFound();
  if (account.userId !== caller.subject && !caller.isOperator) throw accountNotFound();
  return account;
}

async function depositLocked(
  ledger: LedgerTransaction,
  accountId: string,
  amount: Money,
  actorId: string,
): Promise<Account> {
  const account = await ledger.lockAccount(accountId);
  if (account === undefined) throw accountNotFound();
  if (account.currencyCode !== amount.currencyCode) {
    throw invalidField('amount.currency_code', `must be ${account.currencyCode}, the account's currency`);
  }
  if (amount.minorUnits > MINOR_UNITS_MAX - account.balance) {
    throw invalidField('amount.minor_units', 'must leave the balance within what an int64 holds');
  }
  await ledger.post(depositTransfer(accountId, amount, actorId));
  return { ...account, balance: account.balance + amount.minorUnits };
}
