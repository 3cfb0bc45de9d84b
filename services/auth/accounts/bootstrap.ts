/** The users and clients of the bootstrap file: created when absent, never changed. */

import { randomUUID } from 'node:crypto';
import type { NewCredential } from '../clients/credentials.js';
import { storedCredential } from '../clients/stored-credentials.js';
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
  { secret, publicKeyPem, ...client }: BootstrapClient,
): Promise<boolean> {
  const { clientId } = client;
  // A deleted client stays deleted, whatever the file says.
  const isKnown = await store.transaction(
    async ({ clients }) =>
      (await clients.find(clientId)) !== undefined || (await clients.wasDeleted(clientId)),
  );
  if (isKnown) return false;
  const credential = credentialOf(publicKeyPem, secret);
  const stored = credential && (await storedCredential(passwords, credential));
  return await store.transaction(async (tx) => {
    const credentials = stored === undefined ? [] : [{ ...stored, createTime: await tx.databaseTime() }];
    if (!(await tx.clients.insertWhenAbsent({ ...client, credentials }))) return false;
    await tx.events.record({ ...BY_BOOTSTRAP, type: 'client-created', subject: { clientId }, details: {} });
    return true;
  });
}

function credentialOf(pem: string | undefined, secret: string | undefined): NewCredential | undefined {
  if (pem !== undefined) return { kind: 'public-key', pem };
  return secret === undefined ? undefined : { kind: 'secret', secret };
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
