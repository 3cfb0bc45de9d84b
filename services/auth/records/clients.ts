/** Clients as the database has them, and their rows inside a transaction. */

import type { PageRequest } from './page.js';

/** Maximum number of used assertions that are remembered for one client. It limits how often a client can authenticate. */
export const ASSERTIONS_PER_CLIENT_MAX = 5000;

/** A key or secret with which a client authenticates. */
export type StoredCredential = {
  /** Unique among the credentials of the client. */
  readonly credentialId: string;
  readonly createTime: Date;
} & (
  | {
      readonly kind: 'public-key';
      /** The key that verifies the client's assertions, in PEM. */
      readonly pem: string;
    }
  | {
      readonly kind: 'secret';
      /** The argon2id hash; empty where it must not be shown. */
      readonly hash: string;
    }
);

/** What a client may do. */
export interface ClientRights {
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
  /** The public nkey with which its service connects to the broker; undefined when the broker knows it otherwise. */
  readonly brokerKey?: string | undefined;
}

/** A client as the database has it. */
export interface Client extends ClientRights {
  readonly clientId: string;
  /** Raised to revoke all tokens whose chain contains the client. */
  readonly generation: bigint;
  /** Oldest first. Each of them authenticates the client. */
  readonly credentials: readonly StoredCredential[];
  /** A disabled client gets no token. */
  readonly disabled: boolean;
  readonly createTime: Date;
}

/** A client to be created. */
export type NewClient = Omit<Client, 'generation' | 'disabled' | 'createTime'>;

/** The rows of clients and of their used assertions, inside a transaction. Deleted clients are not found. */
export interface ClientRows {
  /** Creates the client; false when there is already one of its id. It continues the generations of a deleted one. */
  insertWhenAbsent(client: NewClient): Promise<boolean>;
  /** The client; takes no lock. */
  find(clientId: string): Promise<Client | undefined>;
  /** Whether a client of this id was deleted, and none was created since. */
  wasDeleted(clientId: string): Promise<boolean>;
  /** The client; its row stays share-locked until the end of the transaction. */
  lockShared(clientId: string): Promise<Client | undefined>;
  /** The client. Minting tokens waits until the end of the transaction. */
  lock(clientId: string): Promise<Client | undefined>;
  /**
   * Raises the client's generation and returns it; undefined when there is no such client. Minting tokens waits until
   * the end of the transaction.
   */
  raiseGeneration(clientId: string): Promise<bigint | undefined>;
  /** Minting tokens and changes of clients wait until the end of the transaction. */
  lockAll(): Promise<void>;
  /** Clients by id, with at most `limit` of all of them, or those of the ids. Without the client of the logins. */
  some(
    which: { readonly limit: number } | { readonly clientIds: readonly string[] },
  ): Promise<readonly Client[]>;
  /** A page of the clients, by id. */
  list(page: PageRequest): Promise<{ clients: Client[]; nextPageToken: string }>;
  /** Those of the scopes and audiences that the configuration of some client names; a client's id is an audience, too. */
  knownWords(words: {
    scopes: readonly string[];
    audiences: readonly string[];
  }): Promise<{ scopes: readonly string[]; audiences: readonly string[] }>;
  /** Disables or enables; false when there is no such client. Locks the client's row. */
  setDisabled(clientId: string, disabled: boolean): Promise<boolean>;
  /** Replaces the client's rights. */
  setRights(clientId: string, rights: ClientRights): Promise<void>;
  /** Replaces the client's credentials. */
  setCredentials(clientId: string, credentials: readonly StoredCredential[]): Promise<void>;
  /** Deletes the client; its id, its generation and its used assertions stay. */
  delete(clientId: string): Promise<void>;
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
