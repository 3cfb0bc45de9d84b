/** Clients: the services that get tokens of their own, how they prove who they are, and what administrators do with them. */

import { createPublicKey, type KeyObject } from 'node:crypto';
import type { Clock } from '@portcullis/guard/clock';
import { invalidField, type ServiceError } from '@portcullis/guard/errors';
import { parseUuid } from '../../common/validation/identifiers.js';
import { parseRequestId } from '../../common/validation/request-id.js';
import { parseWords } from '../../common/validation/words.js';
import { PASSWORD_LENGTH_MAX, type Passwords, passwordFault } from '../accounts/passwords.js';
import { AuthError } from '../errors.js';
import type { Client } from '../records/clients.js';
import type { PageRequest } from '../records/page.js';
import type { Receipt } from '../records/revocations.js';
import { checkReason, clientRevocation } from '../revocation/log.js';
import { changeAndRevoke } from '../revocation/revoking-change.js';
import type { AuthStore, AuthTransaction } from '../transaction.js';

/** The client of everybody who logs in without naming one. */
export const DIRECT_CLIENT = 'direct';

/** The smallest RSA key of a client, in bits. */
export const CLIENT_RSA_BITS_MIN = 2048;

/** The shortest secret of a client, in UTF-16 units. */
export const CLIENT_SECRET_LENGTH_MIN = 32;

/** The longest public key, in characters; one of RSA with 16384 bits has fewer. */
export const CLIENT_KEY_PEM_LENGTH_MAX = 8192;

/** An administrator's request about one client. */
export interface ClientRequest {
  readonly actor: string;
  readonly clientId: string;
  /** With one, a request that comes again does nothing and gets the first answer. */
  readonly requestId: string;
}

/** How a client that is to be created will prove who it is. */
export type NewCredential =
  | { readonly kind: 'public-key'; readonly pem: string }
  | { readonly kind: 'secret'; readonly secret: string };

/** What administrators do with clients. */
export interface Clients {
  /**
   * Creates a client. The same request id answers the same client again.
   *
   * @throws ServiceError FIELD_INVALID, ALREADY_EXISTS, REQUEST_ID_REUSED
   */
  create(
    request: ClientRequest & {
      readonly credential: NewCredential | undefined;
      readonly audiences: readonly string[];
      readonly scopes: readonly string[];
      readonly exchangeAudiences: readonly string[];
      /** Those that users' tokens have when empty. */
      readonly exchangeScopes: readonly string[];
      readonly certificateBound: boolean;
    },
  ): Promise<Client>;
  /** A page of clients, by id. Throws FIELD_INVALID. */
  list(page: PageRequest): Promise<{ clients: Client[]; nextPageToken: string }>;
  /**
   * Keeps a client from getting tokens, and kills every token in whose chain it takes part.
   *
   * @throws ServiceError NOT_FOUND, FIELD_INVALID, REQUEST_ID_REUSED
   */
  disable(
    request: ClientRequest & { readonly reason: string },
  ): Promise<Receipt & { readonly client: Client }>;
  /**
   * Lets a client get tokens again. It revokes nothing, so the log has nothing of it.
   *
   * @throws ServiceError NOT_FOUND, FIELD_INVALID, REQUEST_ID_REUSED
   */
  enable(request: ClientRequest): Promise<Client>;
}

/** What {@link createClients} needs. */
export interface ClientsDeps {
  readonly store: AuthStore;
  readonly passwords: Passwords;
  readonly clock: Clock;
  /** A keyed hash, with which requests that hold a secret can be compared and nothing else. */
  readonly fingerprint: (secret: string) => string;
}

/** The clients of this database. */
export function createClients(deps: ClientsDeps): Clients {
  const { store } = deps;
  return {
    create: (request) => create(deps, request),
    list: (page) => store.transaction((tx) => tx.clients.list(page)),
    disable: async (request) => {
      const { actor, clientId, reason } = request;
      checkReason(reason);
      const requestId = parseRequestId(request.requestId);
      checkKnownName(clientId);
      // Nobody could log in any more, not even to enable it. Revoking it ends what is open, and is no trap.
      if (clientId === DIRECT_CLIENT) throw invalidField('client_id', 'must not be that of the logins');
      const payload = JSON.stringify([clientId, reason]);
      const once = { subject: actor, method: 'DisableClient', requestId, payload };
      return await changeAndRevoke(deps, once, async (tx) => {
        const generation = await tx.clients.raiseGeneration(clientId);
        if (generation === undefined) throw noSuchClient();
        await tx.clients.setDisabled(clientId, true);
        const client = await tx.clients.find(clientId);
        if (client === undefined) throw noSuchClient();
        await record(tx, 'client-disabled', { actor, clientId, reason });
        const entry = {
          ...clientRevocation(clientId, generation),
          actor,
          reason: reason || 'client disabled',
        };
        return { result: { client: withoutSecret(client) }, entry };
      });
    },
    enable: async ({ actor, clientId, ...rest }) => {
      const requestId = parseRequestId(rest.requestId);
      checkKnownName(clientId);
      return await store.transaction((tx) =>
        tx.once({ subject: actor, method: 'EnableClient', requestId, payload: clientId }, async () => {
          await tx.clients.setDisabled(clientId, false);
          const client = await tx.clients.find(clientId);
          if (client === undefined) throw noSuchClient();
          await record(tx, 'client-enabled', { actor, clientId, reason: '' });
          return withoutSecret(client);
        }),
      );
    },
  };
}

async function create(
  { store, passwords, fingerprint }: ClientsDeps,
  request: Parameters<Clients['create']>[0],
): Promise<Client> {
  const { actor, clientId, credential, certificateBound } = request;
  const fault = clientIdFault(clientId);
  if (fault !== undefined) throw invalidField('client_id', fault);
  const rights = {
    audiences: parseWords('audiences', request.audiences),
    scopes: parseWords('scopes', request.scopes),
    exchangeAudiences: parseWords('exchange_audiences', request.exchangeAudiences),
    exchangeScopes: parseWords('exchange_scopes', request.exchangeScopes),
  };
  checkCredential(credential);
  const requestId = parseRequestId(request.requestId);
  if (requestId === '') throw invalidField('request_id', 'must be set');
  const isKey = credential.kind === 'public-key';
  const secretHash = isKey ? undefined : await passwords.hash(credential.secret);
  const payload = JSON.stringify([
    clientId,
    rights,
    certificateBound,
    isKey ? credential.pem : fingerprint(credential.secret),
  ]);
  return await store.transaction((tx) =>
    tx.once({ subject: actor, method: 'CreateClient', requestId, payload }, async () => {
      const inserted = await tx.clients.insertWhenAbsent({
        clientId,
        publicKeyPem: isKey ? credential.pem : undefined,
        secretHash,
        certificateBound,
        ...rights,
        exchangeScopes: rights.exchangeScopes.length === 0 ? undefined : rights.exchangeScopes,
      });
      const client = inserted ? await tx.clients.find(clientId) : undefined;
      if (client === undefined) throw new AuthError('ALREADY_EXISTS', 'this client id is taken');
      await record(tx, 'client-created', { actor, clientId, reason: '' });
      return withoutSecret(client);
    }),
  );
}

async function record(
  tx: AuthTransaction,
  type: 'client-created' | 'client-disabled' | 'client-enabled',
  { actor, clientId, reason }: { actor: string; clientId: string; reason: string },
): Promise<void> {
  await tx.events.record({ type, subject: { clientId }, actor, reason, network: '', details: {} });
}

function checkCredential(credential: NewCredential | undefined): asserts credential is NewCredential {
  if (credential === undefined) throw invalidField('credential', 'must be set');
  if (credential.kind === 'secret') {
    const fault = clientSecretFault(credential.secret);
    if (fault !== undefined) throw invalidField('client_secret', fault);
    return;
  }
  if (credential.pem.length > CLIENT_KEY_PEM_LENGTH_MAX) {
    throw invalidField('public_key_pem', `must have at most ${CLIENT_KEY_PEM_LENGTH_MAX} characters`);
  }
  const key = parseClientKey(credential.pem);
  if ('fault' in key) throw invalidField('public_key_pem', key.fault);
}

/** Answers are kept with their requests, and listed: not even the hash of a secret belongs there. Its presence does. */
function withoutSecret(client: Client): Client {
  return client.secretHash === undefined ? client : { ...client, secretHash: '' };
}

/** What is wrong with a client's id; undefined when nothing is. */
export function clientIdFault(clientId: string): string | undefined {
  if (!/^[a-z0-9][a-z0-9._-]{0,63}$/.test(clientId)) {
    return 'must be 1 to 64 lower-case letters, digits, dots, underscores and hyphens';
  }
  // It becomes the subject of the client's tokens, and users are known by UUIDs.
  return parseUuid(clientId) === undefined ? undefined : 'must not be a UUID';
}

/** What is wrong with a client's secret; undefined when nothing is. */
export function clientSecretFault(secret: string): string | undefined {
  if (secret.length < CLIENT_SECRET_LENGTH_MIN || secret.length > PASSWORD_LENGTH_MAX) {
    return `must have ${CLIENT_SECRET_LENGTH_MIN} to ${PASSWORD_LENGTH_MAX} characters`;
  }
  return passwordFault(secret);
}

/** A name that no client can have must not reach the database. */
function checkKnownName(clientId: string): void {
  if (clientIdFault(clientId) !== undefined) throw noSuchClient();
}

function noSuchClient(): ServiceError {
  return new AuthError('NOT_FOUND', 'there is no such client');
}

/** A client's public key, and the algorithms that it verifies. */
export interface ClientKey {
  readonly key: KeyObject;
  readonly algorithms: readonly string[];
}

/**
 * Reads the public key of a client. The key decides the algorithms, never the assertion's header.
 *
 * @returns the key, or what is wrong with it
 */
export function parseClientKey(pem: string): ClientKey | { readonly fault: string } {
  if (pem.includes('PRIVATE KEY')) return { fault: 'must be a public key, not a private one' };
  let key: KeyObject;
  try {
    key = createPublicKey(pem);
  } catch {
    return { fault: 'must be a public key in PEM' };
  }
  const algorithms = algorithmsOf(key);
  return algorithms.length > 0
    ? { key, algorithms }
    : { fault: `must be Ed25519, P-256, or RSA of at least ${CLIENT_RSA_BITS_MIN} bits` };
}

/**
 * The certificate that tokens of a client are bound to; undefined when they are not to be bound.
 *
 * @param mustBind - they are, whatever the client's own setting says
 * @throws ServiceError CERTIFICATE_REQUIRED when they are to be bound and the client has shown none
 */
export function bindingOf(client: Client, shown: string | undefined, mustBind = false): string | undefined {
  if (!client.certificateBound && !mustBind) return undefined;
  if (shown !== undefined) return shown;
  throw new AuthError(
    'CERTIFICATE_REQUIRED',
    'the token would be bound to a certificate, and none was shown',
  );
}

/** What every client hears that could not prove who it is. */
export function clientAuthenticationFailed(cause?: unknown): ServiceError {
  return new AuthError('CLIENT_AUTHENTICATION_FAILED', 'the client is unknown or its proof is wrong', {
    cause,
  });
}

function algorithmsOf(key: KeyObject): readonly string[] {
  const { namedCurve, modulusLength = 0 } = key.asymmetricKeyDetails ?? {};
  if (key.asymmetricKeyType === 'ed25519') return ['EdDSA', 'Ed25519'];
  if (key.asymmetricKeyType === 'ec' && namedCurve === 'prime256v1') return ['ES256'];
  return key.asymmetricKeyType === 'rsa' && modulusLength >= CLIENT_RSA_BITS_MIN ? ['RS256', 'PS256'] : [];
}
