/** The rows of clients in the simulated database. */

import type { Client } from '../../services/auth/records/clients.js';
import type { AuthTransaction } from '../../services/auth/transaction.js';
import type { Transaction } from './database.js';
import { onlyThese } from './only-these.js';

/** A client, or what is left of one. */
interface StoredClient extends Client {
  readonly deleted?: boolean;
}

/** The rows of clients, inside a transaction. */
export function clientRows(transaction: Transaction): AuthTransaction['clients'] {
  const stored = (clientId: string): StoredClient | undefined =>
    transaction.get('clients', clientId) as StoredClient | undefined;
  const put = (client: StoredClient): void => transaction.put('clients', client.clientId, client);
  const find = (clientId: string): Client | undefined => {
    const client = stored(clientId);
    return client?.deleted === true ? undefined : client;
  };
  const lock = (mode: 'share' | 'exclusive') => (clientId: string) =>
    transaction.statement(async () => {
      await transaction.lock('clients', mode);
      return find(clientId);
    });
  /** Changes a client that exists. @returns whether it does */
  const change = (clientId: string, to: Partial<StoredClient>) =>
    transaction.statement(() => {
      const client = find(clientId);
      if (client !== undefined) put({ ...client, ...to });
      return client !== undefined;
    });
  return onlyThese<AuthTransaction['clients']>({
    insertWhenAbsent: (client) =>
      transaction.statement(() => {
        if (find(client.clientId) !== undefined) return false;
        const generation = stored(client.clientId)?.generation ?? 0n;
        const createTime = new Date(transaction.node.process.clock.wallMs());
        put({ ...client, generation, disabled: false, createTime });
        return true;
      }),
    find: (clientId) => transaction.statement(() => find(clientId)),
    wasDeleted: (clientId) => transaction.statement(() => stored(clientId)?.deleted === true),
    lockShared: lock('share'),
    lock: lock('exclusive'),
    raiseGeneration: (clientId) =>
      transaction.statement(async () => {
        await transaction.lock('clients', 'exclusive');
        const client = find(clientId);
        if (client === undefined) return undefined;
        put({ ...client, generation: client.generation + 1n });
        return client.generation + 1n;
      }),
    setDisabled: (clientId, disabled) => change(clientId, { disabled }),
    setRights: async (clientId, rights) => {
      const { audiences, scopes, exchangeAudiences, exchangeScopes, certificateBound } = rights;
      await change(clientId, { audiences, scopes, exchangeAudiences, exchangeScopes, certificateBound });
    },
    setCredentials: async (clientId, credentials) => {
      await change(clientId, { credentials });
    },
    delete: async (clientId) => {
      await change(clientId, { credentials: [], disabled: true, deleted: true });
    },
  });
}
