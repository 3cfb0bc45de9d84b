/** The environment of the races: auth, and two instances of a service with a fence, the second behind links. */

import { generateKeyPairSync, randomUUID } from 'node:crypto';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { credentials } from '@grpc/grpc-js';
import { FENCE_TABLE } from '@portcullis/guard';
import pg from 'pg';
import { AuthServiceClient } from '../../proto/gen/auth/v1/auth_service.js';
import { ClientServiceClient } from '../../proto/gen/auth/v1/client_service.js';
import {
  RevocationServiceClient,
  type RevokeResponse,
  RevokeWait,
} from '../../proto/gen/portcullis/revocation/v1/revocation.js';
import { ask } from '../../scripts/system/calls.js';
import { createServiceProcess, type ServiceProcess } from '../../scripts/system/parts.js';
import { ensureDatabase } from '../../scripts/system/postgres.js';
import { PROJECT_FOLDER, programArguments } from '../../scripts/system/project.js';
import { type System, startSystem } from '../../scripts/system/system.js';
import { makeTemporaryFolder } from '../../scripts/system/temporary-folder.js';
import { createForge, type Forge } from '../attack/forge.js';
import { stealKeys } from '../attack/stolen-keys.js';
import { freePair, OPS_OFFSET } from './environment.js';
import { type Link, openLink } from './link.js';
import { RACE_CLIENT, RACE_SCOPE, RACE_TABLE } from './race-service.js';

/** Long, so that an instance that is cut off trusts its list until well after Revoke has returned. */
const LEASE_MS = 20_000;
/** The operator's token lasts for the whole run. */
const OPERATOR_SECONDS = 3_600;
const TOKEN_SECONDS = 600;
const REVOKE_TIMEOUT_MS = 40_000;
const DATABASE = 'races';

/** A token of the races. */
export interface RaceToken {
  readonly tokenId: string;
  readonly text: string;
}

/** Two instances that commit, and what can be done to the second one. */
export interface RaceEnvironment {
  readonly instances: readonly [ServiceProcess, ServiceProcess];
  /** The way of the second instance to auth, and to the broker. */
  readonly links: readonly Link[];
  /** Signs tokens with the key of auth, which could not issue so many. */
  mint(count: number): RaceToken[];
  /** Revokes all tokens in one call, and waits for the fence. */
  revoke(tokens: readonly RaceToken[]): Promise<RevokeResponse>;
  /** How many transactions of a batch are committed, in a statement that begins now. */
  countCommits(batch: number): Promise<number>;
  stop(): Promise<void>;
}

interface Options {
  readonly signal: AbortSignal;
  readonly onProgress: (text: string) => void;
}

/** Builds the environment in a temporary folder; stopping it removes the folder. */
export async function buildRaceEnvironment(options: Options): Promise<RaceEnvironment> {
  const folder = await makeTemporaryFolder();
  const undo: (() => Promise<void> | void)[] = [() => folder.remove()];
  const stop = async (): Promise<void> => {
    for (const step of undo.splice(0).reverse()) await step();
  };
  try {
    return { ...(await buildIn(folder.path, options, undo)), stop };
  } catch (error) {
    await stop();
    throw error;
  }
}

async function buildIn(
  dataDir: string,
  { signal, onProgress }: Options,
  undo: (() => Promise<void> | void)[],
): Promise<Omit<RaceEnvironment, 'stop'>> {
  const system = await startSystem({
    dataDir,
    ports: 'free',
    ephemeral: true,
    leaseMs: LEASE_MS,
    withoutDemo: true,
    environment: { PORTCULLIS_ACCESS_TOKEN_SECONDS: String(OPERATOR_SECONDS) },
    signal,
    onProgress: ({ part, state, detail }) => {
      if (state !== 'starting') onProgress(`${part} ${detail}`.trim());
    },
  });
  undo.push(() => system.stop());
  // They would only take processor time.
  await Promise.all([...system.inventory, system.payment].map((service) => service.stop()));
  const { postgres, nats } = system;
  if (postgres === undefined || nats === undefined) throw new TypeError('the drill needs its own servers');
  const databaseUrl = postgres.url(DATABASE);
  await ensureDatabase(postgres.url('postgres'), DATABASE);
  const database = new pg.Client({ connectionString: databaseUrl });
  await database.connect();
  undo.push(() => database.end());
  await database.query(FENCE_TABLE);
  await database.query(RACE_TABLE);

  const token = await logIn(system);
  const keyFile = join(dataDir, 'race-key.pem');
  await createRaceClient(system, token, keyFile);
  const natsUrl = new URL(nats.url('inventory'));
  const links = [await openLink(portOf(system.auth.address)), await openLink(Number(natsUrl.port))] as const;
  undo.push(async () => void (await Promise.all(links.map((link) => link.close()))));
  const viaLink = new URL(natsUrl);
  viaLink.host = links[1].address;
  const common = { dataDir, issuer: system.issuer, keyFile, databaseUrl };
  const instances = [
    await prepare({ ...common, name: 'races-1', auth: system.auth.address, nats: natsUrl.href }),
    await prepare({ ...common, name: 'races-2', auth: links[0].address, nats: viaLink.href }),
  ] as const;
  for (const instance of instances) {
    undo.push(() => instance.stop());
    await instance.launch();
    await instance.ready({ signal });
    onProgress(`${instance.name} ${instance.address}`);
  }
  const revocation = new RevocationServiceClient(system.auth.address, system.credentials);
  undo.push(() => revocation.close());
  const forge = await forgeOf(system);
  return {
    instances,
    links,
    mint: (count) => mint(forge, count),
    revoke: (tokens) => revokeAll(revocation, token, tokens),
    countCommits: async (batch) => {
      const select = 'SELECT count(*)::int AS count FROM race_commits WHERE batch = $1';
      const { rows } = await database.query<{ count: number }>(select, [batch]);
      return rows[0]?.count ?? 0;
    },
  };
}

function revokeAll(
  client: RevocationServiceClient,
  token: string,
  tokens: readonly RaceToken[],
): Promise<RevokeResponse> {
  const request = {
    target: undefined,
    targets: tokens.map(({ tokenId }) => ({ target: { $case: 'tokenId' as const, value: tokenId } })),
    reason: 'the drill',
    wait: RevokeWait.REVOKE_WAIT_FENCED,
    fences: [RACE_CLIENT],
    dryRun: false,
  };
  return ask(client.revoke.bind(client), request, { token, timeoutMs: REVOKE_TIMEOUT_MS });
}

async function logIn({ auth, users, credentials: channel }: System): Promise<string> {
  const client = new AuthServiceClient(auth.address, channel);
  try {
    const { username, password } = users.olga;
    const request = { username, password, audiences: [], scopes: [], deviceName: 'drill' };
    return (await ask(client.login.bind(client), request)).accessToken;
  } finally {
    client.close();
  }
}

/** Creates the client of the instances, and writes its private key. */
async function createRaceClient({ auth }: System, token: string, keyFile: string): Promise<void> {
  const { privateKey, publicKey } = generateKeyPairSync('ed25519');
  await writeFile(keyFile, privateKey.export({ type: 'pkcs8', format: 'pem' }), { mode: 0o600 });
  const client = new ClientServiceClient(auth.address, credentials.createInsecure());
  try {
    const request = {
      clientId: RACE_CLIENT,
      credential: {
        $case: 'publicKeyPem' as const,
        value: publicKey.export({ type: 'spki', format: 'pem' }).toString(),
      },
      audiences: ['auth'],
      scopes: ['auth.sync'],
      exchangeAudiences: [],
      exchangeScopes: [],
      requestId: randomUUID(),
      certificateBound: false,
      brokerPublicKey: '',
    };
    await ask(client.createClient.bind(client), request, { token });
  } finally {
    client.close();
  }
}

async function prepare(options: {
  readonly dataDir: string;
  readonly name: string;
  readonly issuer: string;
  readonly auth: string;
  readonly nats: string;
  readonly keyFile: string;
  readonly databaseUrl: string;
}): Promise<ServiceProcess> {
  const { dataDir, name } = options;
  const port = await freePair();
  const address = `127.0.0.1:${port}`;
  const opsAddress = `127.0.0.1:${port + OPS_OFFSET}`;
  return createServiceProcess({
    address,
    opsAddress,
    launch: {
      name,
      command: process.execPath,
      arguments: [...programArguments('proofs/drill/race-process')],
      cwd: PROJECT_FOLDER,
      environment: {
        PATH: process.env['PATH'],
        DRILL_ISSUER: options.issuer,
        DRILL_AUTH_ADDRESS: options.auth,
        DRILL_NATS_URL: options.nats,
        DRILL_CLIENT_KEY_FILE: options.keyFile,
        DRILL_DATABASE_URL: options.databaseUrl,
        DRILL_LISTEN: address,
        DRILL_OPS_LISTEN: opsAddress,
      },
      logFile: join(dataDir, 'logs', `${name}.log`),
    },
  });
}

/** Tokens of the client, as auth would issue them. */
async function forgeOf(system: System): Promise<Forge> {
  const { token } = await stealKeys(system);
  const claims = {
    iss: system.issuer,
    sub: RACE_CLIENT,
    client_id: RACE_CLIENT,
    aud: [RACE_CLIENT],
    scope: RACE_SCOPE,
    roles: [],
    clients: [[RACE_CLIENT, 1]],
  };
  return createForge(token.privateKey, { alg: token.algorithm, kid: token.kid, typ: 'at+jwt' }, claims);
}

function mint(forge: Forge, count: number): RaceToken[] {
  const iat = Math.floor(Date.now() / 1_000);
  return Array.from({ length: count }, () => {
    const tokenId = randomUUID();
    return { tokenId, text: forge.withClaims({ jti: tokenId, iat, exp: iat + TOKEN_SECONDS }) };
  });
}

function portOf(address: string): number {
  return Number(address.slice(address.lastIndexOf(':') + 1));
}
