/** The entries of the log as operators see them: who revoked what and why, and which instances enforce it. */

import type { EntryKind } from '../records/revocations.js';
import type { InstanceDescription } from './log.js';

/** An entry of the log, for people. */
export interface ListedRevocation {
  readonly sequence: bigint;
  readonly kind: EntryKind;
  /** The `jti`, `sid`, `sub`, `client_id` or `kid`; with CLAIM the value. */
  readonly target: string;
  /** Empty for this issuer. */
  readonly issuer: string;
  /** With CLAIM: the JSON Pointer of the claim; empty for other kinds. */
  readonly claim: string;
  readonly minGeneration: bigint;
  /** Undefined for entries of versions that did not record it. */
  readonly revokeTime: Date | undefined;
  readonly keepUntil: Date;
  readonly reason: string;
  readonly actor: string;
  /** The security event that it shares with other revocations; empty when it has its own. */
  readonly eventId: string;
  /** The network of the caller; empty when there was no call. */
  readonly network: string;
  readonly requestId: string;
}

/** A page of revocations, newest first. */
interface RevocationPage {
  readonly revocations: readonly ListedRevocation[];
  readonly nextPageToken: string;
}

/** A revocation at one instance, as far as auth knows. */
export interface RevocationAtInstance {
  readonly service: string;
  readonly instance: Buffer;
  /** `UNKNOWN`: it did not have the entry, and its lease has ended. */
  readonly state: 'ENFORCED' | 'PENDING' | 'UNKNOWN';
  /**
   * Database time of the sync by which auth first knew that the instance had the entry. Undefined unless `ENFORCED`, and
   * for the moment until the history is written.
   */
  readonly enforcedTime: Date | undefined;
  /** Database time at which its last lease ends. Undefined after a crash of the database, until it syncs again. */
  readonly leaseEndTime: Date | undefined;
  readonly lastSyncAgeMs: number | undefined;
  /** Undefined for versions that state none, and after a crash of the database until it syncs again. */
  readonly description: InstanceDescription | undefined;
  /** Its last request stated that it has stopped serving. */
  readonly left: boolean;
}

/** What an operator asks of the log. */
export interface RevocationRecords {
  /**
   * Lists the entries of the present epoch.
   *
   * @throws ServiceError FIELD_INVALID for a bad page
   */
  list(request: {
    readonly pageSize: number;
    readonly pageToken: string;
    /** Only entries about this identifier; empty for all. */
    readonly target: string;
    /** Only entries of this actor; empty for all. */
    readonly actor: string;
    /** Only entries that share this security event; empty for all. */
    readonly eventId: string;
  }): Promise<RevocationPage>;
  /**
   * Returns one entry of the present epoch.
   *
   * @throws ServiceError NOT_FOUND when there is no such entry, or no more
   */
  get(sequence: bigint): Promise<{
    readonly revocation: ListedRevocation;
    readonly instances: readonly RevocationAtInstance[];
  }>;
}
