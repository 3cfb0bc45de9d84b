/** The users and clients of the bootstrap file: created when absent, never changed. */

import { randomUUID } from 'node:crypto';
import type { Role } from '../records/users.js';
import type { AuthStore } from '../transaction.js';
import type { Passwords } from './passwords.js';
import { skeletonOf } from './usernames.js';

/** The content of the bootstrap file, with its secrets in plain text. */
export interface Bootstrap {
  readonly users: readonly BootstrapUser[];
  readonly clients: readonly BootstrapClient[];
}

interface BootstrapUser {
  readonly username: string;
  readonly password: string;
  readonly roles: readonly Role[];
}

/** It has either a public key or a secret. */
interface BootstrapClient {
  readonly clientId: string;
  readonly publicKeyPem: string | undefined;
  readonly secret: string | undefined;
  readonly audiences: readonly string[];
  readonly scopes: readonly string[];
  readonly exchangeAudiences: readonly string[];
  readonly exchangeScopes: readonly string[] | undefined;
  readonly certificateBound: boolean;
}

/** What {@link applyBootstrap} has done. */
interface BootstrapResult {
  /** Number of created users. */
  readonly users: number;
  /** Number of created clients. */
  readonly clients: number;
  /** Names that could not be created, because existing names look like them. */
  readonly lookAlikes: readonly string[];
}

interface BootstrapDeps {
  readonly store: AuthStore;
  readonly passwords: Passwords;
}

const BY_BOOTSTRAP = { actor: 'bootstrap', reason: 'named in the bootstrap file', network: '' } as const;

/** Creates the users and clients that do not exist. Several replicas may do so at the same time. */
export async function applyBootstrap(bootstrap: Bootstrap, deps: BootstrapDeps): Promise<BootstrapResult> {
  let clients = 0;
  for (const client of bootstrap.clients) if (await createWhenAbsent(deps, client)) clients += 1;
  const outcomes: (readonly [username: string, outcome: UserOutcome])[] = [];
  for (const user of bootstrap.users) outcomes.push([user.username, await createUserWhenAbsent(deps, user)]);
  return {
    users: outcomes.filter(([, outcome]) => outcome === 'CREATED').length,
    clients,
    lookAlikes: outcomes.filter(([, outcome]) => outcome === 'LOOKS_ALIKE').map(([username]) => username),
  };
}

async function createWhenAbsent(
  { store, passwords }: BootstrapDeps,
  { secret, ...client }: BootstrapClient,
): Promise<boolean> {
  const { clientId } = client;
  if (await store.transaction((tx) => tx.clients.find(clientId))) return false;
  const secretHash = secret === undefined ? undefined : await passwords.hash(secret);
  return await store.transaction(async (tx) => {
    if (!(await tx.clients.insertWhenAbsent({ ...client, secretHash }))) return false;
    await tx.events.record({ ...BY_BOOTSTRAP, type: 'client-created', subject: { clientId }, details: {} });
    return true;
  });
}

type UserOutcome = 'CREATED' | 'EXISTS' | 'LOOKS_ALIKE';

async function createUserWhenAbsent(
  { store, passwords }: BootstrapDeps,
  { username, password, roles }: BootstrapUser,
): Promise<UserOutcome> {
  if (await store.transaction((tx) => tx.users.hasName(username))) return 'EXISTS';
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
  if (user !== undefined) return 'CREATED';
  return (await store.transaction((tx) => tx.users.hasName(username))) ? 'EXISTS' : 'LOOKS_ALIKE';
}
