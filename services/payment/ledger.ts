/** The ledger: double entry, by balanced transfers. */

import type { Money } from '../common/money.js';

/** Why money moves. */
export type EntryKind = 'DEPOSIT' | 'CAPTURE' | 'REFUND';

/**
 * The accounts without an owner, one of each in every currency. Deposits come from WORLD; the money of purchases goes to
 * SALES.
 */
type SystemAccount = 'WORLD' | 'SALES';

/** One side of a transfer: positive into the account, negative out of it. */
interface TransferEntry {
  readonly account: { readonly accountId: string } | { readonly system: SystemAccount };
  readonly minorUnits: bigint;
}

/** A movement of money: entries of one currency that sum to zero. */
export interface Transfer {
  readonly kind: EntryKind;
  readonly currencyCode: string;
  readonly paymentId: string | undefined;
  /** The user whose call moves the money. */
  readonly actorId: string;
  /** The reason that this user gives; may be empty. */
  readonly reason: string;
  readonly entries: readonly TransferEntry[];
}

/** One entry of an account in the ledger. */
export interface LedgerEntry {
  readonly entryId: string;
  readonly amount: Money;
  readonly kind: EntryKind;
  readonly paymentId: string | undefined;
  readonly createTime: Date;
}

/** An account of a user. */
export interface Account {
  readonly accountId: string;
  readonly userId: string;
  readonly currencyCode: string;
  /** Includes the held money. */
  readonly balance: bigint;
  /** The part of the balance that is held for payments under way. */
  readonly held: bigint;
  readonly createTime: Date;
}

/** Writes to the ledger inside one transaction. */
export interface LedgerTransaction {
  /** Opens an account and the system accounts of its currency; undefined when the user has an account in it already. */
  openAccount(userId: string, currencyCode: string): Promise<Account | undefined>;
  /** Locks an account until the transaction ends. */
  lockAccount(accountId: string): Promise<Account | undefined>;
  /** Writes a transfer and its entries. */
  post(transfer: Transfer): Promise<void>;
  /** Holds part of the balance for a payment, so that it cannot be spent otherwise. */
  hold(paymentId: string, accountId: string, minorUnits: bigint): Promise<void>;
  /** Releases what is held for a payment, if anything is. */
  releaseHold(paymentId: string): Promise<void>;
}

/** A deposit from outside into an account. */
export function depositTransfer(accountId: string, amount: Money, actorId: string): Transfer {
  const { minorUnits, currencyCode } = amount;
  const entries = [
    { account: { system: 'WORLD' }, minorUnits: -minorUnits },
    { account: { accountId }, minorUnits },
  ] as const;
  return { kind: 'DEPOSIT', currencyCode, paymentId: undefined, actorId, reason: '', entries };
}

/** The money of a purchase, from the buyer to the shop. */
export function captureTransfer(purchase: {
  paymentId: string;
  accountId: string;
  userId: string;
  amount: Money;
}): Transfer {
  const { paymentId, accountId, userId, amount } = purchase;
  const entries = [
    { account: { accountId }, minorUnits: -amount.minorUnits },
    { account: { system: 'SALES' }, minorUnits: amount.minorUnits },
  ] as const;
  const { currencyCode } = amount;
  return { kind: 'CAPTURE', currencyCode, paymentId, actorId: userId, reason: '', entries };
}

/** Money of a purchase, back from the shop to the buyer. */
export function refundTransfer(refund: {
  paymentId: string;
  accountId: string;
  amount: Money;
  actorId: string;
  reason: string;
}): Transfer {
  const { paymentId, accountId, amount, actorId, reason } = refund;
  const entries = [
    { account: { system: 'SALES' }, minorUnits: -amount.minorUnits },
    { account: { accountId }, minorUnits: amount.minorUnits },
  ] as const;
  return { kind: 'REFUND', currencyCode: amount.currencyCode, paymentId, actorId, reason, entries };
}
