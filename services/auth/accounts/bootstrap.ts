/** The users and clients that must exist from the start: created when absent, never changed. */

import { randomUUID } from 'node:crypto';
import type { Role } from '../records/users.js';
import type { AuthStore } from '../transaction.js';
import type { Passwords } from './passwords.js';
import { skeletonOf } from './usernames.js';

/** What must exist from the start; the text of secrets is in here. */
export interface Bootstrap {
  readonly users: readonly BootstrapUser[];
  readonly clients: readonly BootstrapClient[];
}

/** A user that must exist. */
export interface BootstrapUser {
  readonly username: string;
  readonly password: string;
  readonly roles: readonly Role[];
}

/** A client that must exist; it has a public key or a secret. */
export interface BootstrapClient {
  readonly clientId: string;
  readonly publicKeyPem: string | undefined;
  readonly secret: string | undefined;
  readonly audiences: readonly string[];
  readonly scopes: readonly string[];
  readonly exchangeAudiences: readonly string[];
  readonly exchangeScopes: readonly string[] | undefined;
  readonly certificateBound: boolean;
}

const BY_BOOTSTRAP = { actor: 'bootstrap', reason: 'named in the bootstrap file', network: '' } as const;

/** Creates what is absent, and names the users who cannot be: others have names that look alike. Several replicas may do so at once. */
export async function applyBootstrap(
  bootstrap: Bootstrap,
  { store, passwords }: { readonly store: AuthStore; readonly passwords: Passwords },
): Promise<{ readonly users: number; readonly clients: number; readonly lookAlikes: readonly string[] }> {
  const created = { users: 0, clients: 0, lookAlikes: [] as string[] };
  for (const { secret, ...client } of bootstrap.clients) {
    if (await store.transaction((tx) => tx.clients.find(client.clientId))) continue;
    const secretHash = secret === undefined ? undefined : await passwords.hash(secret);
    const { clientId } = client;
    const inserted = await store.transaction(async (tx) => {
      if (!(await tx.clients.insertWhenAbsent({ ...client, secretHash }))) return false;
      await tx.events.record({ ...BY_BOOTSTRAP, type: 'client-created', subject: { clientId }, details: {} });
      return true;
    });
    if (inserted) created.clients += 1;
  }
  for (const { username, password, roles } of bootstrap.users) {
    if (await store.transaction((tx) => tx.users.hasName(username))) continue;
    const passwordHash = await passwords.hash(password);
    const user = await store.transaction(async (tx) => {
      const userId = randomUUID();
      const nameSkeleton = skeletonOf(username);
      const inserted = await tx.users.insert({ userId, username, nameSkeleton, passwordHash, roles });
      if (inserted === undefined) return undefined;
      await tx.events.record({
        ...BY_BOOTSTRAP,
        type: 'account-created',
        subject: { userId },
        details: { roles },
      });
      return inserted;
    });
    if (user !== undefined) created.users += 1;
    else if (!(await store.transaction((tx) => tx.users.hasName(username))))
      created.lookAlikes.push(username);
  }
  return created;
}
