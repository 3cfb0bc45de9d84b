/** Clients as the database has them, and their rows inside a transaction. */

import type { PageRequest } from './page.js';

/** Maximum number of used assertions that are remembered for one client. It limits how often a client can authenticate. */
export const ASSERTIONS_PER_CLIENT_MAX = 5000;

/** A client as the database has it. */
export interface Client {
  readonly clientId: string;
  /** Raised to revoke all tokens whose chain contains the client. */
  readonly generation: bigint;
  /** The key that verifies the client's assertions, in PEM. At most one of this and `secretHash` is set. */
  readonly publicKeyPem: string | undefined;
  readonly secretHash: string | undefined;
  /** The audiences that its own tokens may have. */
  readonly audiences: readonly string[];
  /** The scopes that its own tokens may have. */
  readonly scopes: readonly string[];
  /** The audiences of the tokens with which it acts for a user. */
  readonly exchangeAudiences: readonly string[];
  /** The scopes that it may have when it acts for a user; undefined for all that the user's token has. */
  readonly exchangeScopes: readonly string[] | undefined;
  /** Its tokens are bound to its client certificate (RFC 8705); without a certificate it gets no token. */
  readonly certificateBound: boolean;
  /** A disabled client gets no token. */
  readonly disabled: boolean;
  readonly createTime: Date;
}

/** A client to be created. */
export type NewClient = Omit<Client, 'generation' | 'disabled' | 'createTime'>;

/** The rows of clients and of their used assertions, inside a transaction. */
export interface ClientRows {
  /** Creates the client; false when there is already one of its id. */
  insertWhenAbsent(client: NewClient): Promise<boolean>;
  /** The client; takes no lock. */
  find(clientId: string): Promise<Client | undefined>;
  /** The client; its row stays share-locked until the end of the transaction. */
  lockShared(clientId: string): Promise<Client | undefined>;
  /**
   * Raises the client's generation and returns it; undefined when there is no such client. Minting tokens waits until
   * the end of the transaction.
   */
  raiseGeneration(clientId: string): Promise<bigint | undefined>;
  /** A page of the clients, by id. */
  list(page: PageRequest): Promise<{ clients: Client[]; nextPageToken: string }>;
  /** Those of the scopes and audiences that the configuration of some client names; a client's id is an audience, too. */
  knownWords(words: {
    scopes: readonly string[];
    audiences: readonly string[];
  }): Promise<{ scopes: readonly string[]; audiences: readonly string[] }>;
  /** Disables or enables; false when there is no such client. Locks the client's row. */
  setDisabled(clientId: string, disabled: boolean): Promise<boolean>;
  /**
   * Records that an assertion was used. The record is deleted some time after the assertion has expired.
   *
   * @returns REUSED when it was used before, FULL when {@link ASSERTIONS_PER_CLIENT_MAX} are recorded
   */
  useAssertion(assertion: {
    clientId: string;
    jtiHash: Buffer;
    expireTime: Date;
  }): Promise<'USED' | 'REUSED' | 'FULL'>;
  /** Deletes at most `limit` expired assertions, and returns their number. */
  deleteExpiredAssertions(limit: number): Promise<number>;
}
