/** `portcullis service add` and `portcullis service broker-config`: services of one's own. */

import { randomUUID } from 'node:crypto';
import { readFile, writeFile } from 'node:fs/promises';
import { join, resolve } from 'node:path';
import { errorOf } from '@portcullis/guard/client';
import {
  ClientServiceClient,
  ClientState,
  type CreateClientRequest,
  type RegisteredClient,
} from '../../gen/auth/v1/client_service.js';
import { PolicyServiceClient, type RegisterServiceResponse } from '../../gen/auth/v1/policy_service.js';
import { brokerUserConfig } from '../broker-config.js';
import type { ContextStore } from '../contexts.js';
import { CommandError, EXIT } from '../failures.js';
import { makeFolder } from '../folders.js';
import { brokerKey, clientKey, type KeyFile } from '../key-files.js';
import { describeChanges } from '../policy-text.js';
import type { Session } from '../session.js';
import { tableOf } from '../tables.js';
import { note, type Terminal, writeResult } from '../terminal.js';
import { changingPolicy, inSession } from './policy.js';

/** What every guarded service needs at auth. */
const SYNC_SCOPE = 'auth.sync';
const EXCHANGE_SCOPE = 'auth.exchange';
const AUTH_AUDIENCE = 'auth';

/** What may stand in the configuration of nats-server. */
const CLIENT_ID = /^[a-z0-9][a-z0-9._-]{0,63}$/;
const NKEY = /^U[A-Z2-7]{55}$/;

/** How many clients a page of ListClients has. */
const PAGE_SIZE = 200;

/** Options of `service add`. */
export interface AddOptions {
  readonly context?: string;
  readonly proto?: string;
  readonly rules?: string;
  readonly role: readonly string[];
  readonly description?: string;
  readonly exchange: readonly string[];
  readonly out: string;
  readonly natsUrl: string;
  readonly env?: string;
  readonly dryRun?: true;
}

/**
 * Registers a service: its scopes from the descriptor set or from a file of rules, a client with a key that is made here,
 * and its user at the broker. Repeating the command after a failure goes on where it stopped.
 */
export async function addService(
  terminal: Terminal,
  store: ContextStore,
  name: string,
  options: AddOptions,
): Promise<void> {
  const descriptorSet = await descriptorSetOf(name, options);
  await inSession(store, options.context, async (session) => {
    // Nothing is made, here or at auth, before auth has accepted the service.
    const planned = await register(session, name, { ...options, descriptorSet, dryRun: true });
    if (options.dryRun === true) {
      writeResult(terminal, planned, () =>
        planned.changes.length === 0 ? 'Nothing would change.' : describeChanges(planned.changes),
      );
      return;
    }
    await makeFolder(options.out, 0o777);
    const key = await clientKey(join(options.out, `${name}.key.pem`));
    const nkey = await brokerKey(join(options.out, `${name}.nkey`));
    const isCreated = await createClient(
      session,
      clientRequest(name, { key, nkey, exchange: options.exchange }),
    );
    const registered = await register(session, name, { ...options, descriptorSet, dryRun: false });
    const settings = settingsOf(name, session, { key, nkey, natsUrl: options.natsUrl });
    if (options.env !== undefined) await writeFile(options.env, settings);
    writeResult(
      terminal,
      {
        service: registered.service,
        changes: registered.changes,
        clientId: name,
        clientCreated: isCreated,
        keyFile: key.file,
        nkeyFile: nkey.file,
        nkey: nkey.publicKey,
        settings,
      },
      () => describeAdded({ registered, isCreated, key, nkey, settings, file: options.env }),
    );
    if (terminal.json) return;
    note(
      terminal,
      `\nUsers get tokens for ${name} with their next login. portcullis start and npm start give the service its user at the broker by themselves; ` +
        'elsewhere, add what portcullis service broker-config prints to the users of nats-server.',
    );
  });
}

/** The descriptor set that auth receives: every method in it declares its rule. */
async function descriptorSetOf(name: string, { proto, rules }: AddOptions): Promise<Buffer> {
  if (rules === undefined) {
    if (proto === undefined) {
      throw new CommandError(
        'Name the descriptor set of the service with --proto, or its rules with --rules.',
        {
          exitCode: EXIT.usage,
        },
      );
    }
    return await readFile(proto).catch((cause: NodeJS.ErrnoException) => {
      throw new CommandError(
        `${proto} cannot be read (${cause.code}): buf build -o ${name}.binpb writes a descriptor set.`,
        { exitCode: EXIT.usage, cause },
      );
    });
  }
  // Loaded when it is used: other commands need nothing of the gate.
  const { RulesError, ruledDescriptorSet } = await import('@portcullis/gate');
  try {
    return ruledDescriptorSet({ rules, ...(proto !== undefined && { descriptors: proto }) });
  } catch (error) {
    if (!(error instanceof RulesError)) throw error;
    throw new CommandError(error.message, { exitCode: EXIT.usage, cause: error });
  }
}

async function register(
  session: Session,
  audience: string,
  options: Pick<AddOptions, 'role' | 'description'> & {
    readonly descriptorSet: Buffer;
    readonly dryRun: boolean;
  },
): Promise<RegisterServiceResponse> {
  const policies = session.client(PolicyServiceClient);
  const request = {
    audience,
    description: options.description ?? '',
    clientIds: [],
    descriptorSet: options.descriptorSet,
    roles: [...options.role],
    etag: '',
    dryRun: options.dryRun,
    requestId: options.dryRun ? '' : randomUUID(),
    reason: '',
  };
  const call = () => session.call(policies.registerService.bind(policies), request);
  // A scope that the descriptor set has no longer leaves the roles, also those of the user who runs the command.
  return options.dryRun ? await call() : await changingPolicy(session, call);
}

function clientRequest(
  clientId: string,
  {
    key,
    nkey,
    exchange,
  }: { readonly key: KeyFile; readonly nkey: KeyFile; readonly exchange: readonly string[] },
): CreateClientRequest {
  return {
    clientId,
    credential: { $case: 'publicKeyPem', value: key.publicKey },
    audiences: [AUTH_AUDIENCE],
    scopes: exchange.length === 0 ? [SYNC_SCOPE] : [SYNC_SCOPE, EXCHANGE_SCOPE],
    exchangeAudiences: [...exchange],
    exchangeScopes: [],
    requestId: randomUUID(),
    certificateBound: false,
    brokerPublicKey: nkey.publicKey,
  };
}

/** @returns false when the client is there already, with this key */
async function createClient(session: Session, request: CreateClientRequest): Promise<boolean> {
  const clients = session.client(ClientServiceClient);
  try {
    await session.call(clients.createClient.bind(clients), request);
    return true;
  } catch (error) {
    if (errorOf(error).reason !== 'ALREADY_EXISTS') throw error;
  }
  const { clientId, credential } = request;
  const { client } = await session.call(clients.getClient.bind(clients), { clientId });
  const known = client?.credentials.map(({ publicKeyPem }) => publicKeyPem.trim()) ?? [];
  if (credential?.$case === 'publicKeyPem' && known.includes(credential.value.trim())) return false;
  throw new CommandError(
    `There is a client ${clientId} with another key. Name the folder with its key with --out, or choose another name.`,
  );
}

/** Environment variables of a service, as the tutorial's server reads them. */
function settingsOf(
  name: string,
  { context }: Session,
  { key, nkey, natsUrl }: { readonly key: KeyFile; readonly nkey: KeyFile; readonly natsUrl: string },
): string {
  // The service may be started in any folder.
  const values = {
    ISSUER: issuerOf(context.accessToken),
    AUTH_ADDRESS: context.address,
    ...(context.caFile !== undefined && { AUTH_CA_FILE: resolve(context.caFile) }),
    CLIENT_ID: name,
    CLIENT_KEY_FILE: resolve(key.file),
    NATS_URL: natsUrl,
    NATS_NKEY_FILE: resolve(nkey.file),
  };
  return Object.entries(values)
    .map(([variable, value]) => `${variable}=${quoted(variable, value)}\n`)
    .join('');
}

/** A value of a file for `node --env-file`. It may come from auth, and must not begin another variable. */
function quoted(variable: string, value: string): string {
  if (/[\p{Cc}"]/u.test(value)) {
    throw new CommandError(`${variable} has a character that a settings file cannot have.`);
  }
  return /[\s#'`$\\]/.test(value) ? `"${value}"` : value;
}

/** The issuer's name, out of a token that it has issued. */
function issuerOf(token: string): string {
  const payload: unknown = JSON.parse(Buffer.from(token.split('.')[1] ?? '', 'base64url').toString());
  return typeof payload === 'object' && payload !== null && 'iss' in payload ? String(payload.iss) : '';
}

function describeAdded(added: {
  readonly registered: RegisterServiceResponse;
  readonly isCreated: boolean;
  readonly key: KeyFile;
  readonly nkey: KeyFile;
  readonly settings: string;
  readonly file: string | undefined;
}): string {
  const { registered, isCreated, key, nkey, settings, file } = added;
  const { service, changes } = registered;
  const made = ({ isNew }: KeyFile): string => (isNew ? 'made now' : 'there already');
  return [
    changes.length === 0 ? `${service?.audience} is registered already.` : describeChanges(changes),
    '',
    tableOf(
      ['what', 'where'],
      [
        ['client', `${service?.audience}${isCreated ? '' : ' (there already)'}`],
        ['key for auth', `${key.file} (${made(key)})`],
        ['key for the broker', `${nkey.file} (${made(nkey)})`],
        ...(file === undefined ? [] : [['settings', file]]),
      ],
    ),
    ...(file === undefined ? ['', settings.trimEnd()] : []),
  ].join('\n');
}

/** Prints what nats-server must allow the registered services. */
export async function printBrokerConfig(
  terminal: Terminal,
  store: ContextStore,
  { context }: { readonly context?: string },
): Promise<void> {
  await inSession(store, context, async (session) => {
    const users = (await allClients(session))
      .filter(
        ({ brokerPublicKey, state }) => brokerPublicKey !== '' && state === ClientState.CLIENT_STATE_ACTIVE,
      )
      .map(({ clientId, brokerPublicKey }) => ({ clientId, nkey: brokerPublicKey }));
    const strange = users.find(({ clientId, nkey }) => !CLIENT_ID.test(clientId) || !NKEY.test(nkey));
    if (strange !== undefined)
      throw new CommandError('Auth has sent a client that no configuration can name.');
    writeResult(terminal, { users }, () => users.map(brokerUserConfig).join('\n'));
  });
}

async function allClients(session: Session): Promise<RegisteredClient[]> {
  const clients = session.client(ClientServiceClient);
  const found: RegisteredClient[] = [];
  let pageToken = '';
  do {
    const page = await session.call(clients.listClients.bind(clients), { pageSize: PAGE_SIZE, pageToken });
    found.push(...page.clients);
    pageToken = page.nextPageToken;
  } while (pageToken !== '');
  return found;
}
