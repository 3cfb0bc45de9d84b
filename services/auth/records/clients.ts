/** Clients as the database has them, and their rows inside a transaction. */

import type { PageRequest } from './page.js';
/** The most assertions of one client that are remembered, and so may be used within their longest life. */
export const ASSERTIONS_PER_CLIENT_MAX = 5000;

/** A client as the database has it. */
export interface Client {
  readonly clientId: string;
  /** Raised to kill every token in whose chain the client takes part. */
  readonly generation: bigint;
  /** The key that verifies the client's assertions; at most one of this and the next is set. */
  readonly publicKeyPem: string | undefined;
  readonly secretHash: string | undefined;
  /** The services that its own tokens may be for. */
  readonly audiences: readonly string[];
  /** The scopes that its own tokens may have. */
  readonly scopes: readonly string[];
  /** The services that it may call for a user. */
  readonly exchangeAudiences: readonly string[];
  /** The scopes that it may have when it acts for a user; undefined for those that the user's token has. */
  readonly exchangeScopes: readonly string[] | undefined;
  /** The tokens that it gets are bound to the certificate that it shows (RFC 8705); without one it gets none. */
  readonly certificateBound: boolean;
  /** It gets no token. */
  readonly disabled: boolean;
  readonly createTime: Date;
}

/** A client that is to be created. */
export type NewClient = Omit<Client, 'generation' | 'disabled' | 'createTime'>;

/** The clients' rows, inside a transaction. */
export interface ClientRows {
  /** Creates the client unless there is one of its name; answers whether it did. */
  insertWhenAbsent(client: NewClient): Promise<boolean>;
  /** The client; takes no lock. */
  find(clientId: string): Promise<Client | undefined>;
  /** The client; its row stays share-locked until the end of the transaction. */
  lockShared(clientId: string): Promise<Client | undefined>;
  /**
   * Raises the client's generation and answers it; undefined when there is no such client. Whoever mints waits
   * until the end of the transaction.
   */
  raiseGeneration(clientId: string): Promise<bigint | undefined>;
  /** A page of the clients, by id. */
  list(page: PageRequest): Promise<{ clients: Client[]; nextPageToken: string }>;
  /** Disables or enables; false when there is no such client. Locks the client's row. */
  setDisabled(clientId: string, disabled: boolean): Promise<boolean>;
  /**
   * Notes that an assertion was used. It is forgotten some time after it has expired.
   *
   * @returns REUSED when it had been used before, FULL when {@link ASSERTIONS_PER_CLIENT_MAX} are remembered
   */
  useAssertion(assertion: {
    clientId: string;
    jtiHash: Buffer;
    expireTime: Date;
  }): Promise<'USED' | 'REUSED' | 'FULL'>;
  /** Drops assertions that have expired, at most so many; answers how many. */
  dropExpiredAssertions(limit: number): Promise<number>;
}
