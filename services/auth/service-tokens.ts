/** Tokens for services: a client proves who it is and gets a token of its own. */

/** The clients' rows, inside a transaction. */
export interface ServiceClientRows {
  /** The client's generation; the row stays share-locked until the end of the transaction. */
  lockShared(clientId: string): Promise<{ readonly generation: bigint } | undefined>;
}
