/** The receipts of revocations: closed after the bound, kept as long as security events, and signed when they are asked for. */

import type { Clock } from '@portcullis/guard/clock';
import { invalidField } from '@portcullis/guard/errors';
import { ID_BYTES } from '@portcullis/guard/limits';
import { AuthError } from '../errors.js';
import type { Keys } from '../keys/keys.js';
import type { PageRequest } from '../records/page.js';
import { createSharedReads } from '../revocation/shared-reads.js';
import { type ReceiptedRevocation, type RoundEvidence, receiptOf } from './receipt.js';

/** A receipt in a list. */
export interface KeptReceipt {
  readonly epoch: Buffer;
  readonly sequence: bigint;
  readonly revocation: ReceiptedRevocation;
}

/** What is stored of receipts. */
export interface ReceiptStore {
  /**
   * Closes the receipts of the oldest revocations whose bound has passed. Any number of replicas may do so at once.
   *
   * @returns how many were closed
   */
  closeRound(): Promise<number>;
  /** A closed receipt. @param epoch - undefined for the present one */
  find(epoch: Buffer | undefined, sequence: bigint): Promise<Evidence | undefined>;
  /** What is known by now of a revocation that is still in the log. */
  readOpen(epoch: Buffer | undefined, sequence: bigint): Promise<Evidence | undefined>;
  list(
    page: PageRequest,
  ): Promise<{ readonly receipts: readonly KeptReceipt[]; readonly nextPageToken: string }>;
  /** The public keys of receipts of all epochs, as JWK texts with their ids. */
  keys(): Promise<readonly { readonly kid: string; readonly algorithm: string; readonly jwk: string }[]>;
  /** Deletes what is kept no longer; returns the number of rounds. */
  deleteOld(): Promise<number>;
}

/** A revocation and the evidence about it. */
export interface Evidence {
  readonly revocation: ReceiptedRevocation;
  readonly round: RoundEvidence;
}

/** The receipts, as the rest of auth uses them. */
export interface Receipts extends Pick<ReceiptStore, 'list' | 'keys'> {
  /**
   * A signed receipt, in the format of docs/spec/receipt-v1.md.
   *
   * @throws ServiceError FIELD_INVALID; NOT_FOUND when there is no such revocation, or no more; DEPENDENCY_UNAVAILABLE
   */
  export(epoch: Buffer, sequence: bigint): Promise<{ readonly receipt: string; readonly final: boolean }>;
  /** Closes all receipts that are due. */
  closeDue(): Promise<void>;
  /** See {@link ReceiptStore.deleteOld}. */
  deleteOld(): Promise<unknown>;
}

export function createReceipts(deps: {
  readonly store: ReceiptStore;
  readonly keys: Pick<Keys, 'signReceipt'>;
  readonly issuer: string;
  readonly clock: Clock;
}): Receipts {
  const { store, keys, issuer, clock } = deps;
  // Any caller may ask for the keys at any rate.
  const keyReads = createSharedReads<undefined, Awaited<ReturnType<ReceiptStore['keys']>>>(async () => {
    const found = await store.keys();
    return () => found;
  });
  return {
    list: (page) => store.list(page),
    keys: () => keyReads.read(undefined),
    export: async (epochBytes, sequence) => {
      if (epochBytes.length !== 0 && epochBytes.length !== ID_BYTES) {
        throw invalidField('epoch', `must be empty or of ${ID_BYTES} bytes`);
      }
      const epoch = epochBytes.length === 0 ? undefined : epochBytes;
      const closed = await store.find(epoch, sequence);
      const evidence = closed ?? (await store.readOpen(epoch, sequence));
      if (evidence === undefined) throw new AuthError('NOT_FOUND', 'there is no such revocation');
      const final = closed !== undefined;
      const now = new Date(clock.wallMs());
      const document = receiptOf(evidence.revocation, evidence.round, { issuer, final, now });
      return { receipt: await keys.signReceipt(Buffer.from(JSON.stringify(document), 'utf8')), final };
    },
    closeDue: async () => {
      while ((await store.closeRound()) > 0);
    },
    deleteOld: () => store.deleteOld(),
  };
}
