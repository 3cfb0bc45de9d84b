/** All credentials of a deployment. docs/operating/compose.md lists the files. */

import { createPublicKey, generateKeyPairSync, randomBytes } from 'node:crypto';
import { nkeys } from 'nats';
import { readDemoPolicy } from '../system/demo-policy.js';
import { SERVICES } from '../system/forwarded-variables.js';
import { CLIENT_GRANTS } from '../system/secrets.js';
import { brokerConfiguration } from './broker.js';
import { makeCertificates } from './certificates.js';
import { CredentialFolder } from './folder.js';
import type { Party } from './parties.js';

const KEY_ENCRYPTION_KEY_BYTES = 32;
const PASSWORD_BYTES = 24;
const ADMIN_PASSWORD_BYTES = 15;

/** The service behind the gate: any server of one's own. */
const GREETER = { audience: 'greeter', description: 'A service behind the gate', scopes: ['greeter.call'] };

/** The clients of auth: the services, and the gate of the greeter. */
const CLIENTS = {
  ...CLIENT_GRANTS,
  greeter: { audiences: ['auth'], scopes: ['auth.sync'], exchange_audiences: [] },
};

/** Roles of the first user, who creates the others. */
const ADMIN_ROLES = ['admin', 'security', 'operator', 'customer'];
/** The roles of the demo that may call the greeter. */
const GREETED = ['customer', 'operator'];

/** What a run has made. */
export interface Made {
  /** Names of new files. */
  readonly made: readonly string[];
  readonly kept: number;
}

/**
 * Makes the files that are missing.
 *
 * @throws SystemError when openssl is missing or fails
 */
export async function makeCredentials(options: {
  readonly folder: string;
  /** Host names in certificates, beside those of deploy/compose. */
  readonly names?: Partial<Record<Party, readonly string[]>>;
  /** `HOST:PORT` of PostgreSQL. */
  readonly database: string;
}): Promise<Made> {
  const folder = await CredentialFolder.open(options.folder);
  await makeCertificates(folder, options.names ?? {});
  await folder.readOrMake('key-encryption-key', () => secret(KEY_ENCRYPTION_KEY_BYTES));
  await makeDatabaseUrls(folder, options.database);
  await makeBrokerKeys(folder);
  await makeBootstrap(folder);
  return { made: folder.made, kept: folder.kept };
}

function secret(bytes: number): string {
  return randomBytes(bytes).toString('base64url');
}

/** For each service two roles: the one that it works with, and the owner of the tables, for migrations. */
async function makeDatabaseUrls(folder: CredentialFolder, database: string): Promise<void> {
  await folder.readOrMake('postgres-password', () => secret(PASSWORD_BYTES));
  for (const service of SERVICES) {
    const name = `portcullis_${service}`;
    for (const [suffix, role, url] of [
      ['', name, `${service}-database-url`],
      ['-owner', `${name}_owner`, `${service}-migration-database-url`],
    ] as const) {
      const password = await folder.readOrMake(`${service}${suffix}-database-password`, () =>
        secret(PASSWORD_BYTES),
      );
      const parameters = 'sslmode=verify-full&sslrootcert=/run/secrets/ca.crt';
      await folder.derive(url, `postgresql://${role}:${password}@${database}/${name}?${parameters}\n`);
    }
  }
}

async function makeBrokerKeys(folder: CredentialFolder): Promise<void> {
  const keys: Record<string, string> = {};
  for (const user of ['auth', ...Object.keys(CLIENTS)]) {
    const seed = await folder.readOrMake(`${user}.nkey`, () =>
      new TextDecoder().decode(nkeys.createUser().getSeed()),
    );
    keys[user] = nkeys.fromSeed(new TextEncoder().encode(seed.trim())).getPublicKey();
  }
  // Operators add users of their own to it.
  await folder.readOrMake('nats.conf', () => brokerConfiguration(keys));
}

/** The policy, the first user and the clients of a new database. */
async function makeBootstrap(folder: CredentialFolder): Promise<void> {
  const clients: object[] = [];
  for (const [name, grants] of Object.entries(CLIENTS)) {
    const key = await folder.readOrMake(`${name}-client.key`, () =>
      String(generateKeyPairSync('ed25519').privateKey.export({ type: 'pkcs8', format: 'pem' })),
    );
    const publicKey = String(createPublicKey(key).export({ type: 'spki', format: 'pem' }));
    clients.push({ client_id: name, public_key_pem: publicKey, ...grants });
  }
  const { services, roles } = readDemoPolicy();
  const policy = {
    services: [...services, GREETER],
    roles: roles.map((one) =>
      GREETED.includes(one.role) ? { ...one, scopes: [...one.scopes, ...GREETER.scopes] } : one,
    ),
  };
  const password = await folder.readOrMake('admin-password', () => secret(ADMIN_PASSWORD_BYTES));
  const users = [{ username: 'admin', password, roles: ADMIN_ROLES }];
  // Auth reads it once, and operators may change it.
  await folder.readOrMake('bootstrap.json', () => `${JSON.stringify({ policy, users, clients }, null, 2)}\n`);
}
