/** Double entry: what may be written into the ledger, as balanced transfers. */
import type { Money } from '../common/money.js';

/** What moves money. */
export type EntryKind = 'DEPOSIT' | 'CAPTURE' | 'REFUND';

/**
 * The accounts that belong to nobody, one of each in every currency: WORLD is where deposits come from, SALES
 * where the money of purchases goes.
 */
export type SystemAccount = 'WORLD' | 'SALES';

/** One side of a transfer: positive into the account, negative out of it. */
export interface TransferEntry {
  readonly account: { readonly accountId: string } | { readonly system: SystemAccount };
  readonly minorUnits: bigint;
}

/** A movement of money: entries of one currency that sum to zero. */
export interface Transfer {
  readonly kind: EntryKind;
  readonly currencyCode: string;
  readonly paymentId: string | undefined;
  /** The user on whose call it happens. */
  readonly actorId: string;
  /** What that user gives as a reason; empty when there is none to give. */
  readonly reason: string;
  readonly entries: readonly TransferEntry[];
}

/** One movement of an account, as the ledger has it. */
export interface LedgerEntry {
  readonly entryId: string;
  readonly amount: Money;
  readonly kind: EntryKind;
  readonly paymentId: string | undefined;
  readonly createTime: Date;
}

/** An account as it stands inside a transaction. */
export interface Account {
  readonly accountId: string;
  readonly userId: string;
  readonly currencyCode: string;
  /** What the user owns, held money included. */
  readonly balance: bigint;
  /** The part of the balance that payments under way hold. */
  readonly held: bigint;
  readonly createTime: Date;
}

/** The ledger, open for writing inside one transaction. */
export interface LedgerTransaction {
  /** Opens an account and the system accounts of its currency; undefined when the user has one in it. */
  openAccount(userId: string, currencyCode: string): Promise<Account | undefined>;
  /** The account, which nobody else moves until the transaction ends. */
  lockAccount(accountId: string): Promise<Account | undefined>;
  /** Writes a transfer. */
  post(transfer: Transfer): Promise<void>;
  /** Keeps part of an account's balance from being spent. */
  hold(paymentId: string, accountId: string, minorUnits: bigint): Promise<void>;
  /** Gives back what the payment holds, if it holds anything. */
  dropHold(paymentId: string): Promise<void>;
}

/** Money comes into an account from outside. */
export function depositTransfer(accountId: string, amount: Money, actorId: string): Transfer {
  const { minorUnits, currencyCode } = amount;
  const entries = [
    { account: { system: 'WORLD' }, minorUnits: -minorUnits },
    { account: { accountId }, minorUnits },
  ] as const;
  return { kind: 'DEPOSIT', currencyCode, paymentId: undefined, actorId, reason: '', entries };
}

/** The money of a purchase goes from the buyer to the shop. */
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

/** Money of a purchase goes back from the shop to the buyer. */
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
