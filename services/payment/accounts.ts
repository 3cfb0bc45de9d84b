/** Accounts: opening them, depositing money, and reading their entries. */

import { invalidField, type ServiceError } from '@portcullis/guard/errors';
import { MINOR_UNITS_MAX, type Money } from '../common/money.js';
import type { PageRequest } from '../common/validation/paging.js';
import { payloadOf, type RepeatableRequest } from '../common/validation/request-id.js';
import { createViolations } from '../common/validation/violations.js';
import type { Caller, Permit } from './caller.js';
import { PaymentError } from './errors.js';
import { type Account, depositTransfer, type LedgerEntry, type LedgerTransaction } from './ledger.js';

/** A page of the entries of an account, newest first. */
interface EntryPage {
  readonly entries: readonly LedgerEntry[];
  /** Empty on the last page. */
  readonly nextPageToken: string;
}

/** Stores accounts. */
export interface AccountStore {
  /**
   * Runs the work once for a request and commits it; a repeated request receives the first response. `permit` is checked
   * last before the commit.
   *
   * @param request.contends - the name of the row for which callers can make others wait
   */
  changeAccountsOnce<T>(
    request: RepeatableRequest & { readonly contends: string },
    permit: Permit,
    work: (ledger: LedgerTransaction) => Promise<T>,
  ): Promise<T>;
  /** @param caller - the user whom it is for: users take turns when they wait for the database */
  findAccount(accountId: string, caller: string): Promise<Account | undefined>;
  /**
   * The entries of an account, newest first.
   *
   * @throws ServiceError FIELD_INVALID for an invalid page size, page token or filter
   */
  listEntries(accountId: string, page: PageRequest, caller: string): Promise<EntryPage>;
}

interface OpenAccountRequest {
  readonly currencyCode: string;
  readonly requestId: string;
}

interface DepositRequest {
  readonly accountId: string;
  /** May be missing on the wire. */
  readonly amount: Money | undefined;
  readonly requestId: string;
}

/** Operations on accounts. */
export interface Accounts {
  /**
   * Opens an account for the caller.
   *
   * @throws ServiceError FIELD_INVALID, ALREADY_EXISTS, REQUEST_ID_REUSED, REQUEST_IN_PROGRESS
   */
  open(request: OpenAccountRequest, caller: Caller): Promise<Account>;
  /**
   * Returns an account of the caller; operators may read all accounts.
   *
   * @throws ServiceError FIELD_INVALID; NOT_FOUND, the same for a missing account and another user's
   */
  get(accountId: string, caller: Caller): Promise<Account>;
  /**
   * Deposits money into any account; the access rule admits operators only.
   *
   * @throws ServiceError FIELD_INVALID, NOT_FOUND, REQUEST_ID_REUSED, REQUEST_IN_PROGRESS, and the reason why the caller
   *   is no longer allowed
   */
  deposit(request: DepositRequest, caller: Caller): Promise<Account>;
  /**
   * Lists the entries of an account of the caller, newest first; operators may read all accounts.
   *
   * @throws ServiceError FIELD_INVALID; NOT_FOUND, the same for a missing account and another user's
   */
  listEntries(request: { accountId: string } & PageRequest, caller: Caller): Promise<EntryPage>;
}

interface AccountDeps {
  readonly store: AccountStore;
}

/** Creates the operations on accounts. */
export function createAccounts(deps: AccountDeps): Accounts {
  return {
    open: (request, caller) => openAccount(deps, request, caller),
    get: (accountId, caller) => getAccount(deps, accountId, caller),
    deposit: (request, caller) => deposit(deps, request, caller),
    listEntries: async ({ accountId, ...page }, caller) => {
      const account = await getAccount(deps, accountId, caller);
      return await deps.store.listEntries(account.accountId, page, caller.subject);
    },
  };
}

/** NOT_FOUND, with the same message for a missing account and another user's. */
export function accountNotFound(): ServiceError {
  return new PaymentError('NOT_FOUND', 'there is no such account');
}

async function openAccount(
  { store }: AccountDeps,
  { currencyCode, requestId }: OpenAccountRequest,
  caller: Caller,
): Promise<Account> {
  const { subject } = caller;
  const violations = createViolations();
  violations.requireCurrency('currency_code', currencyCode);
  violations.requireRequestId(requestId);
  violations.throwIfAny();
  const contends = `accounts of ${subject}`;
  const request = { subject, method: 'OpenAccount', requestId, payload: currencyCode, contends };
  return await store.changeAccountsOnce(request, caller, async (ledger) => {
    const account = await ledger.openAccount(subject, currencyCode);
    if (account !== undefined) return account;
    throw new PaymentError('ALREADY_EXISTS', `you have an account in ${currencyCode} already`);
  });
}

async function getAccount({ store }: AccountDeps, accountId: string, caller: Caller): Promise<Account> {
  const violations = createViolations();
  const id = violations.requireUuid('account_id', accountId);
  violations.throwIfAny();
  const account = await store.findAccount(id, caller.subject);
  if (account === undefined) throw accountNotFound();
  if (account.userId !== caller.subject && !caller.isOperator) throw accountNotFound();
  return account;
}

async function deposit({ store }: AccountDeps, request: DepositRequest, caller: Caller): Promise<Account> {
  const { subject } = caller;
  const { requestId } = request;
  const { accountId, amount } = validDepositOf(request);
  const payload = payloadOf(accountId, amount.minorUnits, amount.currencyCode);
  const contends = `account ${accountId}`;
  const repeatable = { subject, method: 'Deposit', requestId, payload, contends };
  return await store.changeAccountsOnce(repeatable, caller, (ledger) =>
    postDeposit(ledger, accountId, amount, subject),
  );
}

/** @returns the account's canonical id and the amount of a valid request */
function validDepositOf({ accountId: text, amount, requestId }: DepositRequest): {
  readonly accountId: string;
  readonly amount: Money;
} {
  const violations = createViolations();
  const accountId = violations.requireUuid('account_id', text);
  if (amount === undefined) violations.require('amount', false, 'is required');
  else violations.requireAmount('amount', amount);
  violations.requireRequestId(requestId);
  violations.throwIfAny();
  if (amount === undefined) throw new TypeError('a deposit without an amount passed the checks');
  return { accountId, amount };
}

async function postDeposit(
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
