/** The environment of the floods: a private system, the accounts of honest callers, and those of attackers. */

import { createPrivateKey, generateKeyPairSync, type KeyObject, randomBytes, randomUUID } from 'node:crypto';
import { readFile, writeFile } from 'node:fs/promises';
import { createServiceTokenSource } from '@portcullis/guard/client';
import { AuthServiceClient, type LoginResponse } from '../../proto/gen/auth/v1/auth_service.js';
import { ask } from '../../scripts/system/calls.js';
import type { ServiceProcess } from '../../scripts/system/parts.js';
import { loadSecrets } from '../../scripts/system/secrets.js';
import { type System, startSystem } from '../../scripts/system/system.js';
import { makeTemporaryFolder } from '../../scripts/system/temporary-folder.js';
import type { FloodInput } from './flood-input.js';

const PASSWORD_BYTES = 12;
/** The longest lifetime: neither honest callers nor attackers have to renew their tokens. */
const ACCESS_TOKEN_SECONDS = 3_600;
const HONEST_USERS = 4;
const ATTACKERS = 8;
/** The attackers' service client. It may do everything that a service may do. */
const ATTACKER_CLIENT = 'floods-service';

/** A user with a password. */
interface Account {
  readonly username: string;
  readonly password: string;
}

/** A private system with honest callers and attackers. */
export interface Environment {
  readonly system: System;
  readonly services: readonly ServiceProcess[];
  /** Customers who log in again and again from a network that auth knows. */
  readonly honest: readonly Account[];
  /** The session of a customer who stays logged in. */
  readonly customer: LoginResponse;
  /** The session of the operator who revokes. */
  readonly operator: LoginResponse;
  /** The key of payment's client. */
  readonly paymentKey: KeyObject;
  /** What the process of a flood receives, but for its seed and length. */
  readonly input: Omit<FloodInput, 'name' | 'seed' | 'seconds'>;
  stop(): Promise<void>;
}

/** Starts a system in a temporary folder; stopping it removes the folder. */
export async function buildEnvironment(signal: AbortSignal): Promise<Environment> {
  const folder = await makeTemporaryFolder();
  let system: System | undefined;
  const stop = async (): Promise<void> => {
    await system?.stop();
    await folder.remove();
  };
  try {
    const accounts = await addAccounts(folder.path);
    system = await startSystem({
      dataDir: folder.path,
      ports: 'free',
      ephemeral: true,
      environment: { PORTCULLIS_ACCESS_TOKEN_SECONDS: String(ACCESS_TOKEN_SECONDS) },
      signal,
    });
    return { ...(await logEverybodyIn(system, accounts)), stop };
  } catch (error) {
    await stop();
    throw error;
  }
}

interface Accounts {
  readonly honest: readonly Account[];
  readonly attackers: readonly Account[];
  /** An attacker who may list users and read security events. */
  readonly insider: Account;
  readonly attackerKey: KeyObject;
}

/** Adds users and a client to auth's bootstrap file, before auth reads it for the first time. */
async function addAccounts(dataDir: string): Promise<Accounts> {
  const { bootstrapFile } = await loadSecrets(dataDir);
  const { privateKey, publicKey } = generateKeyPairSync('ed25519');
  const accountsNamed = (name: string, count: number): Account[] =>
    Array.from({ length: count }, (_, index) => ({
      username: `${name}-${index + 1}`,
      password: randomBytes(PASSWORD_BYTES).toString('base64url'),
    }));
  const [honest, attackers] = [accountsNamed('honest', HONEST_USERS), accountsNamed('mallory', ATTACKERS)];
  const insider = { username: 'insider', password: randomBytes(PASSWORD_BYTES).toString('base64url') };
  const bootstrap = JSON.parse(await readFile(bootstrapFile, 'utf8')) as {
    users: object[];
    clients: object[];
  };
  bootstrap.users.push(...[...honest, ...attackers].map((account) => ({ ...account, roles: ['customer'] })));
  bootstrap.users.push({ ...insider, roles: ['security'] });
  bootstrap.clients.push({
    client_id: ATTACKER_CLIENT,
    public_key_pem: publicKey.export({ type: 'spki', format: 'pem' }),
    audiences: ['auth', 'inventory'],
    scopes: ['auth.sync', 'auth.exchange', 'auth.introspect', 'inventory.read'],
    exchange_audiences: ['inventory'],
    exchange_scopes: ['inventory.read'],
  });
  await writeFile(bootstrapFile, JSON.stringify(bootstrap, null, 2), { mode: 0o600 });
  return { honest, attackers, insider, attackerKey: privateKey };
}

async function logEverybodyIn(system: System, accounts: Accounts): Promise<Omit<Environment, 'stop'>> {
  const auth = new AuthServiceClient(system.auth.address, system.credentials);
  try {
    const logIn = async ({ username, password }: Account): Promise<LoginResponse> => {
      const request = { username, password, audiences: [], scopes: [], deviceName: 'floods' };
      return await ask(auth.login.bind(auth), request);
    };
    const [customer, operator] = [await logIn(system.users.alice), await logIn(system.users.olga)];
    const attackers: FloodInput['customers'][number][] = [];
    for (const account of accounts.attackers) {
      const { accessToken, refreshToken, session } = await logIn(account);
      attackers.push({
        ...account,
        accessToken,
        refreshToken,
        sessionId: session?.sessionId ?? randomUUID(),
      });
    }
    const insider = await logIn(accounts.insider);
    // Makes the network of the honest callers known.
    for (const account of accounts.honest) await logIn(account);
    const [one, two] = system.inventory;
    const services = [system.auth, one, two, system.payment];
    return {
      system,
      services,
      honest: accounts.honest,
      customer,
      operator,
      paymentKey: createPrivateKey(await readFile(system.secrets.clientKeyFiles.payment, 'utf8')),
      input: {
        addresses: {
          auth: system.auth.address,
          inventory: [one.address, two.address],
          payment: system.payment.address,
          ops: services.map(({ opsAddress }) => opsAddress),
        },
        issuer: system.issuer,
        honestNames: accounts.honest.map(({ username }) => username),
        customers: attackers,
        securityToken: insider.accessToken,
        service: {
          clientId: ATTACKER_CLIENT,
          privateKeyPem: accounts.attackerKey.export({ type: 'pkcs8', format: 'pem' }).toString(),
          accessToken: await serviceToken(system, accounts.attackerKey),
        },
      },
    };
  } finally {
    auth.close();
  }
}

async function serviceToken(system: System, clientKey: KeyObject): Promise<string> {
  const source = createServiceTokenSource({
    address: system.auth.address,
    credentials: system.credentials,
    clientId: ATTACKER_CLIENT,
    clientKey,
    issuer: system.issuer,
    audiences: ['auth'],
  });
  try {
    return await source.get();
  } finally {
    source.close();
  }
}
