/** The secrets of a system: created once, and kept in its data folder, readable only by its owner. */

import { createPublicKey, generateKeyPairSync, randomBytes } from 'node:crypto';
import { mkdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { readDemoPolicy } from './demo-policy.js';
import { writeAtomically } from './files.js';
import { SERVICES, type Service } from './forwarded-variables.js';
import { SystemError } from './system-error.js';

const KEY_ENCRYPTION_KEY_BYTES = 32;
const PASSWORD_BYTES = 12;
const DATABASE_PASSWORD_BYTES = 24;

/** The roles of the demo's users. */
const USER_ROLES = {
  alice: ['customer'],
  bob: ['customer'],
  olga: ['operator', 'security', 'admin'],
} as const;

/** The services that are clients of auth, and the audiences and scopes of each. */
export const CLIENT_GRANTS = {
  inventory: { audiences: ['auth'], scopes: ['auth.sync'], exchange_audiences: [] },
  payment: {
    audiences: ['auth', 'inventory'],
    scopes: ['auth.sync', 'auth.exchange', 'inventory.settle'],
    exchange_audiences: ['inventory'],
    exchange_scopes: ['inventory.reserve', 'inventory.read'],
  },
} as const;

export type UserName = keyof typeof USER_ROLES;

type ClientName = keyof typeof CLIENT_GRANTS;

export interface DemoUser {
  readonly username: UserName;
  readonly password: string;
  readonly roles: readonly string[];
}

/** The passwords of the database roles: the one that a service works with, and the one that owns its tables. */
export type DatabasePasswords = Readonly<
  Record<Service, { readonly service: string; readonly owner: string }>
>;

export interface Secrets {
  readonly folder: string;
  readonly keyEncryptionKeyFile: string;
  readonly bootstrapFile: string;
  readonly clientKeyFiles: Readonly<Record<ClientName, string>>;
  readonly databasePasswords: DatabasePasswords;
  readonly users: Readonly<Record<UserName, DemoUser>>;
}

/**
 * Returns the secrets of a data folder, and creates those that are missing. An existing file is never overwritten:
 * other data are encrypted with it, or contain its counterpart.
 *
 * @param options.certificateBound - binds the services' tokens to their client certificates
 * @throws SystemError when the folder was created by a version whose services had fewer scopes
 */
export async function loadSecrets(dataDir: string, { certificateBound = false } = {}): Promise<Secrets> {
  const folder = join(dataDir, 'secrets');
  await mkdir(folder, { recursive: true, mode: 0o700 });
  const keyEncryptionKeyFile = join(folder, 'key-encryption-key');
  const clientKeyFiles = {
    inventory: join(folder, 'inventory-key.pem'),
    payment: join(folder, 'payment-key.pem'),
  };
  const bootstrapFile = join(folder, 'bootstrap.json');
  const databasePasswords = await loadDatabasePasswords(folder);
  const secrets = { folder, keyEncryptionKeyFile, clientKeyFiles, bootstrapFile, databasePasswords };
  const known = await readFile(bootstrapFile, 'utf8').catch(() => undefined);
  if (known !== undefined) {
    requireScopes(known, dataDir);
    return { ...secrets, users: usersOf(known) };
  }
  await readOrCreate(keyEncryptionKeyFile, () => randomBytes(KEY_ENCRYPTION_KEY_BYTES).toString('base64url'));
  const clients = await Promise.all(
    (['inventory', 'payment'] as const).map(async (name) => ({
      ...(await createClient(name, clientKeyFiles[name])),
      certificate_bound: certificateBound,
    })),
  );
  const users = Object.entries(USER_ROLES).map(([username, roles]) => ({
    username,
    password: randomBytes(PASSWORD_BYTES).toString('base64url'),
    roles,
  }));
  // Written last: when this file exists, the others do, too.
  const bootstrap = `${JSON.stringify({ policy: readDemoPolicy(), users, clients }, null, 2)}\n`;
  await writeAtomically(bootstrapFile, bootstrap);
  return { ...secrets, users: usersOf(bootstrap) };
}

/** Auth never changes an existing client, so a client with too few scopes would fail much later. */
function requireScopes(bootstrap: string, dataDir: string): void {
  const { clients } = JSON.parse(bootstrap) as {
    clients: { client_id: string; scopes: readonly string[] }[];
  };
  for (const [name, { scopes }] of Object.entries(CLIENT_GRANTS)) {
    const has = clients.find(({ client_id }) => client_id === name)?.scopes ?? [];
    const missing = scopes.find((scope) => !has.includes(scope));
    if (missing === undefined) continue;
    throw new SystemError(
      `The data in ${dataDir} were created by an earlier version: ${name} lacks the scope ${missing}. ` +
        'Choose another folder with PORTCULLIS_DATA_DIR, or remove this one to start with new data.',
    );
  }
}

/** Data folders of earlier versions lack some of them. */
async function loadDatabasePasswords(folder: string): Promise<DatabasePasswords> {
  const load = async (name: string): Promise<string> =>
    await readOrCreate(join(folder, `${name}-database-password`), () =>
      randomBytes(DATABASE_PASSWORD_BYTES).toString('base64url'),
    );
  const loaded = SERVICES.map(
    async (name) => [name, { service: await load(name), owner: await load(`${name}-owner`) }] as const,
  );
  return Object.fromEntries(await Promise.all(loaded)) as DatabasePasswords;
}

async function createClient(name: ClientName, keyFile: string): Promise<object> {
  const key = await readOrCreate(keyFile, () =>
    generateKeyPairSync('ed25519').privateKey.export({ type: 'pkcs8', format: 'pem' }).toString(),
  );
  const publicKey = createPublicKey(key).export({ type: 'spki', format: 'pem' });
  return { client_id: name, public_key_pem: publicKey, ...CLIENT_GRANTS[name] };
}

async function readOrCreate(file: string, make: () => string): Promise<string> {
  const known = await readFile(file, 'utf8').catch(() => undefined);
  if (known !== undefined) return known;
  const made = make();
  await writeAtomically(file, made);
  return made;
}

function usersOf(bootstrap: string): Secrets['users'] {
  const { users } = JSON.parse(bootstrap) as { users: DemoUser[] };
  return Object.fromEntries(users.map((user) => [user.username, user])) as Record<UserName, DemoUser>;
}
