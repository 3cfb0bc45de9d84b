/** The policy, users and clients of the bootstrap file: created when absent, never changed. */

import { randomUUID } from 'node:crypto';
import type { NewCredential } from '../clients/credentials.js';
import { storedCredential } from '../clients/stored-credentials.js';
import { differencesBetween, lostRights } from '../policy/differences.js';
import { withBuiltIns } from '../policy/document.js';
import { policyEvents } from '../policy/policy-events.js';
import type { PolicyDocument } from '../records/policy.js';
import type { AuthStore } from '../transaction.js';
import type { Passwords } from './passwords.js';
import { skeletonOf } from './usernames.js';

/** A user of the bootstrap file cannot be created, because the policy lacks a role of the user. */
export class UnknownRoleError extends Error {}

/** The content of the bootstrap file, with its secrets in plain text. */
export interface Bootstrap {
  /** The services and roles beside the built-in ones; undefined when the file has no policy. */
  readonly policy?: PolicyDocument | undefined;
  readonly users: readonly BootstrapUser[];
  readonly clients: readonly BootstrapClient[];
}

interface BootstrapUser {
  readonly username: string;
  readonly password: string;
  readonly roles: readonly string[];
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
  /** Whether the policy of the file replaced the built-in one. */
  readonly policy: boolean;
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

/**
 * Replaces the policy unless it was changed before, and creates the users and clients that do not exist. Several replicas
 * may do so at the same time.
 *
 * @throws UnknownRoleError
 */
export async function applyBootstrap(bootstrap: Bootstrap, deps: BootstrapDeps): Promise<BootstrapResult> {
  const policy = bootstrap.policy !== undefined && (await replacePolicy(deps, bootstrap.policy));
  let clients = 0;
  for (const client of bootstrap.clients) if (await createWhenAbsent(deps, client)) clients += 1;
  const outcomes: (readonly [username: string, outcome: UserOutcome])[] = [];
  for (const user of bootstrap.users) outcomes.push([user.username, await createUserWhenAbsent(deps, user)]);
  return {
    policy,
    users: outcomes.filter(([, outcome]) => outcome === 'CREATED').length,
    clients,
    lookAlikes: outcomes.filter(([, outcome]) => outcome === 'LOOKS_ALIKE').map(([username]) => username),
  };
}

async function replacePolicy({ store }: BootstrapDeps, given: PolicyDocument): Promise<boolean> {
  return await store.transaction(async (tx) => {
    const before = await tx.policy.lock();
    if (before.changed) return false;
    const document = withBuiltIns(given);
    await tx.policy.replace(document);
    const eventId = randomUUID();
    // Users of the built-in roles may be logged in already: by another replica, or before the file had a policy.
    const changes = differencesBetween(before, document);
    const lost = lostRights(changes, before);
    if (lost.scopes.length > 0) await tx.narrowings.add({ ...lost, actor: BY_BOOTSTRAP.actor, eventId });
    const events = policyEvents({ ...BY_BOOTSTRAP, eventId, subject: {} }, changes);
    await Promise.all(events.map((event) => tx.events.record(event)));
    return true;
  });
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
    const { scopesOfRole } = await tx.policy.current();
    const unknown = roles.filter((role) => !scopesOfRole.has(role));
    if (unknown.length > 0)
      throw new UnknownRoleError(`${username} has roles that are not in the policy: ${unknown.join(', ')}`);
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
