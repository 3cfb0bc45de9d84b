/** The secrets of a system: made once, kept in its data folder for its owner's eyes alone. */

import { createPublicKey, generateKeyPairSync, randomBytes, randomUUID } from 'node:crypto';
import { mkdir, readFile, rename, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { SystemError } from './system-error.js';

const KEY_ENCRYPTION_KEY_BYTES = 32;
const PASSWORD_BYTES = 12;
const DATABASE_PASSWORD_BYTES = 24;

/** The demo's users, and what each may do. */
const USER_ROLES = {
  alice: ['customer'],
  bob: ['customer'],
  olga: ['operator', 'security', 'admin'],
} as const;

/** The services that have a client of their own at auth, and what each may ask for. */
const CLIENT_RIGHTS = {
  inventory: { audiences: ['auth'], scopes: ['auth.sync'], exchange_audiences: [] },
  payment: {
    audiences: ['auth', 'inventory'],
    scopes: ['auth.sync', 'auth.exchange', 'inventory.settle'],
    exchange_audiences: ['inventory'],
    exchange_scopes: ['inventory.reserve', 'inventory.read'],
  },
} as const;

/** The name of one of the demo's users. */
export type UserName = keyof typeof USER_ROLES;

/** The name of a service that proves who it is with a key. */
export type ClientName = keyof typeof CLIENT_RIGHTS;

/** Somebody who can log in. */
export interface DemoUser {
  readonly username: UserName;
  readonly password: string;
  readonly roles: readonly string[];
}

/** Where the secrets are, and the users' passwords. */
export interface Secrets {
  readonly folder: string;
  readonly keyEncryptionKeyFile: string;
  readonly bootstrapFile: string;
  readonly clientKeyFiles: Readonly<Record<ClientName, string>>;
  /** Of the role with which payment works on its database. */
  readonly paymentDatabasePassword: string;
  readonly users: Readonly<Record<UserName, DemoUser>>;
}

/**
 * Returns the secrets of a data folder, and makes those that are not there yet. A file that exists is
 * never written again: other data are encrypted with it, or hold its counterpart.
 *
 * @param options.certificateBound - whether the services' tokens are to be bound to their certificates
 * @throws SystemError when the folder was made by a version whose services had other rights
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
  const paymentDatabasePassword = await keepOrMake(join(folder, 'payment-database-password'), () =>
    randomBytes(DATABASE_PASSWORD_BYTES).toString('base64url'),
  );
  const secrets = { folder, keyEncryptionKeyFile, clientKeyFiles, bootstrapFile, paymentDatabasePassword };
  const known = await readFile(bootstrapFile, 'utf8').catch(() => undefined);
  if (known !== undefined) {
    demandRights(known, dataDir);
    return { ...secrets, users: usersOf(known) };
  }
  await keepOrMake(keyEncryptionKeyFile, () => randomBytes(KEY_ENCRYPTION_KEY_BYTES).toString('base64url'));
  const clients = await Promise.all(
    (['inventory', 'payment'] as const).map(async (name) => ({
      ...(await makeClient(name, clientKeyFiles[name])),
      certificate_bound: certificateBound,
    })),
  );
  const users = Object.entries(USER_ROLES).map(([username, roles]) => ({
    username,
    password: randomBytes(PASSWORD_BYTES).toString('base64url'),
    roles,
  }));
  // The last to be written: when it is there, so are the others.
  const bootstrap = `${JSON.stringify({ users, clients }, null, 2)}\n`;
  await writeWhole(bootstrapFile, bootstrap);
  return { ...secrets, users: usersOf(bootstrap) };
}

/** Auth never changes a client that exists, so one with fewer rights than its service needs would fail much later. */
function demandRights(bootstrap: string, dataDir: string): void {
  const { clients } = JSON.parse(bootstrap) as {
    clients: { client_id: string; scopes: readonly string[] }[];
  };
  for (const [name, { scopes }] of Object.entries(CLIENT_RIGHTS)) {
    const has = clients.find(({ client_id }) => client_id === name)?.scopes ?? [];
    const missing = scopes.find((scope) => !has.includes(scope));
    if (missing === undefined) continue;
    throw new SystemError(
      `The data in ${dataDir} were made by an earlier version: ${name} lacks the scope ${missing}. ` +
        'Choose another folder with PORTCULLIS_DATA_DIR, or remove this one to begin with new data.',
    );
  }
}

async function makeClient(name: ClientName, keyFile: string): Promise<object> {
  const key = await keepOrMake(keyFile, () =>
    generateKeyPairSync('ed25519').privateKey.export({ type: 'pkcs8', format: 'pem' }).toString(),
  );
  const publicKey = createPublicKey(key).export({ type: 'spki', format: 'pem' });
  return { client_id: name, public_key_pem: publicKey, ...CLIENT_RIGHTS[name] };
}

async function keepOrMake(file: string, make: () => string): Promise<string> {
  const known = await readFile(file, 'utf8').catch(() => undefined);
  if (known !== undefined) return known;
  const made = make();
  await writeWhole(file, made);
  return made;
}

function usersOf(bootstrap: string): Secrets['users'] {
  const { users } = JSON.parse(bootstrap) as { users: DemoUser[] };
  return Object.fromEntries(users.map((user) => [user.username, user])) as Record<UserName, DemoUser>;
}

async function writeWhole(file: string, content: string): Promise<void> {
  const draft = `${file}.${randomUUID()}`;
  await writeFile(draft, content, { mode: 0o600 });
  await rename(draft, file);
}
