/** Client authentication: by an assertion signed with the client's key (RFC 7523), or by a secret. */

import { createHash } from 'node:crypto';
import { CLOCK_SKEW_SECONDS } from '@portcullis/guard/limits';
import { networkOfPeer } from '@portcullis/guard/networks';
import { WORD_LENGTH_MAX } from '../../common/validation/words.js';
import type { Passwords } from '../accounts/passwords.js';
import { clientAuthenticationFailed } from '../clients/credentials.js';
import { usableKeysOf } from '../clients/stored-credentials.js';
import { AuthError } from '../errors.js';
import type { Client, StoredCredential } from '../records/clients.js';
import type { FairQueue, QueueCaller } from '../security/fair-queue.js';
import type { Throttle } from '../security/throttle.js';
import type { AuthStore, AuthTransaction, ReadPlace } from '../transaction.js';
import {
  ASSERTION_SECONDS_MAX,
  type AssertionClaims,
  assertionFormFault,
  checkAssertionClaims,
  verifyAssertionSignature,
} from './assertions.js';
import { ClientFault, clientFault } from './client-faults.js';
import type { ClientTurns } from './client-turns.js';

/** Default number of assertions that are verified at the same time. */
export const ASSERTIONS_AT_ONCE_DEFAULT = 4;

/** Default number of callers of one class that wait for the verification of an assertion. */
export const ASSERTIONS_WAITING_DEFAULT = 256;

/** What a client presents to authenticate. */
export type ClientCredential =
  | { readonly kind: 'assertion'; readonly assertion: string }
  | { readonly kind: 'secret'; readonly secret: string };

/** An authentication whose expensive part has succeeded. */
interface PreparedAuthentication {
  /** The rest: authenticates the client whose row the transaction has locked; returns what is wrong. */
  authenticate(tx: AuthTransaction, client: Client): Promise<ClientFault | undefined>;
  /** Called when the client got its token. */
  succeeded(): void;
}

export interface ClientAuthenticationDeps {
  readonly store: AuthStore;
  readonly passwords: Passwords;
  /** Counts guesses at secrets. A signature cannot be guessed, so assertions are not counted. */
  readonly throttle: Throttle;
  /** The queue for assertions, whose verification needs the database and a thread. */
  readonly assertions: Pick<FairQueue, 'run'>;
  readonly turns: ClientTurns;
  /** The only audience of a valid assertion. */
  readonly issuer: string;
}

/** Who wants to be authenticated. */
interface Presented {
  readonly clientId: string;
  /** The peer's address. */
  readonly peer: string;
  /** The caller in the lane of the database. */
  readonly caller: string;
}

/** A request of a client to authenticate. */
interface AuthenticationRequest extends Presented {
  readonly credential: ClientCredential | undefined;
}

/** Whether the text can be a client's id; any other text must not reach the database. */
function mayBeClientId(text: string): boolean {
  return text.length <= WORD_LENGTH_MAX && !text.includes('\0');
}

/**
 * Does the part of the authentication that takes long, before any row is locked, and returns the rest.
 *
 * @throws ServiceError CLIENT_AUTHENTICATION_FAILED with a {@link ClientFault} as its cause; RATE_LIMITED
 */
export async function prepareAuthentication(
  deps: ClientAuthenticationDeps,
  { credential, ...presented }: AuthenticationRequest,
): Promise<PreparedAuthentication> {
  if (!mayBeClientId(presented.clientId)) throw refused('unknown-client');
  switch (credential?.kind) {
    case 'assertion':
      return await prepareAssertion(deps, { ...presented, assertion: credential.assertion });
    case 'secret':
      return await prepareSecret(deps, { ...presented, secret: credential.secret });
    case undefined:
      throw refused('no-credential');
  }
}

function refused(fault: ClientFault['fault']): Error {
  return clientAuthenticationFailed(clientFault(fault));
}

async function prepareAssertion(
  { store, assertions, turns, issuer }: ClientAuthenticationDeps,
  { clientId, peer, caller, assertion }: Presented & { readonly assertion: string },
): Promise<PreparedAuthentication> {
  const formFault = assertionFormFault(assertion, clientId);
  if (formFault !== undefined) throw refused(formFault);
  const network = networkOfPeer(peer);
  const turn = turns.callerOf(clientId, network);
  const verified = await assertions.run(turn, async () =>
    verifyAssertion(await store.reads.clients.find(clientId, placeOf(turn, caller)), assertion),
  );
  if (verified instanceof ClientFault) throw clientAuthenticationFailed(verified);
  return {
    authenticate: async (tx, client) => {
      if (!hasCredential(client, verified.credential)) return clientFault('changed');
      const now = await tx.databaseTime();
      const claims = checkAssertionClaims(verified.claims, issuer, now.getTime() / 1000);
      return claims instanceof ClientFault ? claims : await useUp(tx, client, claims);
    },
    succeeded: () => turns.succeeded(clientId, network),
  };
}

/** A client that is known in its network does not wait for the database behind those that anyone can name. */
function placeOf({ importance }: QueueCaller, caller: string): ReadPlace {
  return { importance: importance === 'known' ? 'known' : 'unknown', caller };
}

/** Verifies an assertion with any of the client's keys, the newest first. */
async function verifyAssertion(
  client: Client | undefined,
  assertion: string,
): Promise<{ readonly claims: AssertionClaims; readonly credential: StoredCredential } | ClientFault> {
  if (client === undefined) return clientFault('unknown-client');
  for await (const { key, credential } of usableKeysOf(client)) {
    const claims = await verifyAssertionSignature(assertion, key);
    if (claims !== undefined) return { claims, credential };
  }
  const hasKey = client.credentials.some(({ kind }) => kind === 'public-key');
  return clientFault(hasKey ? 'signature' : 'no-credential');
}

/** Whether the client still has a credential that was verified without a lock. */
function hasCredential({ credentials }: Client, verified: StoredCredential): boolean {
  const same = credentials.find(({ credentialId }) => credentialId === verified.credentialId);
  if (same === undefined || same.kind !== verified.kind) return false;
  return same.kind === 'secret'
    ? verified.kind === 'secret' && same.hash === verified.hash
    : verified.kind === 'public-key' && same.pem === verified.pem;
}

/** Each assertion is good once. */
async function useUp(
  tx: AuthTransaction,
  { clientId }: Client,
  { jti, exp }: { readonly jti: string; readonly exp: number },
): Promise<ClientFault | undefined> {
  const outcome = await tx.clients.useAssertion({
    clientId,
    jtiHash: createHash('sha256').update(jti, 'utf8').digest(),
    expireTime: new Date((exp + CLOCK_SKEW_SECONDS) * 1000),
  });
  // The client has authenticated, so it may learn why it gets no token.
  if (outcome === 'FULL') {
    throw new AuthError('RATE_LIMITED', 'the client has used too many assertions that have not expired', {
      retryAfterMs: ASSERTION_SECONDS_MAX * 100,
    });
  }
  return outcome === 'USED' ? undefined : clientFault('replay');
}

/** A secret can be guessed, so failures are counted by client and network: one client's do not refuse another. */
async function prepareSecret(
  { store, passwords, throttle, turns }: ClientAuthenticationDeps,
  { clientId, peer, caller, secret }: Presented & { readonly secret: string },
): Promise<PreparedAuthentication> {
  const network = networkOfPeer(peer);
  const turn = turns.callerOf(clientId, network);
  const client = await store.reads.clients.find(clientId, placeOf(turn, caller));
  const secrets = client?.credentials.filter((one) => one.kind === 'secret') ?? [];
  // Without a lock on the name, a client cannot be stopped from other networks by its id.
  const attempt = await throttle.attempt(undefined, peer, secrets.length > 0 ? clientId : undefined);
  const matching = async (): Promise<StoredCredential | undefined> => {
    // Without a secret, the same work is done: the time must not reveal which clients exist.
    if (secrets.length === 0) await passwords.verify(undefined, secret, turn);
    for (const one of secrets) if (await passwords.verify(one.hash, secret, turn)) return one;
    return undefined;
  };
  const verified = await matching().catch(async (error: unknown) => {
    await attempt.uncount();
    throw error;
  });
  if (verified === undefined) {
    if (client === undefined) throw refused('unknown-client');
    throw refused(secrets.length === 0 ? 'no-credential' : 'secret');
  }
  // The secret is right: whatever refuses the token from here on, it was no guess.
  await attempt.uncount();
  return {
    // Removed meanwhile, it is no longer among the credentials of the locked row.
    authenticate: (_tx, locked) =>
      Promise.resolve(hasCredential(locked, verified) ? undefined : clientFault('changed')),
    succeeded: () => turns.succeeded(clientId, network),
  };
}
