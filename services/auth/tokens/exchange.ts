/** Token exchange (RFC 8693): a service gets a token with which it acts for the user who called it. */

import type { ServiceError } from '@portcullis/guard/errors';
import { ACTOR_CHAIN_LENGTH_MAX, TOKEN_LENGTH_MAX } from '@portcullis/guard/limits';
import { parseWords } from '../../common/validation/words.js';
import { audienceOfScope, isServedBy, OWN_AUDIENCE, rolesWithin, scopesOfRoles } from '../accounts/roles.js';
import { certificateBindingOf } from '../clients/certificate-binding.js';
import { AuthError } from '../errors.js';
import type { Client } from '../records/clients.js';
import type { Policy } from '../records/policy.js';
import type { AuthTransaction } from '../transaction.js';
import { type IntrospectDeps, type Introspection, identify, introspect, turnOf } from './introspect.js';
import { requireKnownRights } from './known-words.js';
import { isLive } from './live-tokens.js';
import type { ForeignToken, MintedToken, VerifiedToken } from './tokens.js';

/** A service's request to act for a user. */
interface ExchangeRequest {
  /** The token with which the service calls auth. */
  readonly callerToken: string;
  /** The calling client, whose requests wait for the database in turn with those of other callers. */
  readonly callerId?: string;
  /** The user's token, with which the service was called. */
  readonly subjectToken: string;
  readonly audience: string;
  readonly scopes: readonly string[];
  /** The thumbprint of the service's client certificate, if it has one. */
  readonly certificateThumbprint?: string | undefined;
}

/** Exchanges and introspects tokens against the database, never against this process's own revocation list. */
export interface Exchange {
  exchange(request: ExchangeRequest): Promise<MintedToken>;
  /** @param callerId - the calling client; see {@link ExchangeRequest.callerId} */
  introspect(token: string, callerId?: string): Promise<Introspection | undefined>;
  /** See {@link identify}. */
  identify(token: string): ReturnType<typeof identify>;
}

type ExchangeDeps = IntrospectDeps;

export function createExchange(deps: ExchangeDeps): Exchange {
  return {
    exchange: (request) => exchangeToken(deps, request),
    introspect: (token, callerId) => introspect(deps, token, callerId),
    identify: (token) => identify(deps, token),
  };
}

/**
 * A token with which the calling service acts for the user. It is for one service, has no scope and no role that the
 * subject token lacks, none that the user has lost since, and does not outlive it. It is revoked together with the subject
 * token, its session, its user, or any client of the chain. It is bound to the service's certificate when the subject token
 * is bound, or the service's tokens are.
 *
 * @throws ServiceError SUBJECT_TOKEN_INVALID whatever is wrong with the subject token; AUDIENCE_NOT_ALLOWED,
 *   SCOPE_MISSING for a request beyond the rights; TOKEN_REVOKED when the caller's own token is no longer valid;
 *   CERTIFICATE_REQUIRED; FIELD_INVALID
 */
async function exchangeToken(deps: ExchangeDeps, request: ExchangeRequest): Promise<MintedToken> {
  const { store, tokens, foreignTokens } = deps;
  const { callerToken, subjectToken } = request;
  const scopes = parseWords('scopes', request.scopes);
  const [audience = ''] = parseWords('audience', [request.audience]);
  // Before the transaction, because the other issuer's keys may have to be fetched.
  const foreign = await foreignTokens.verify(subjectToken);
  return await store.transaction(async (tx) => {
    const verify = await tokens.verifierIn(tx);
    const caller = await verify(callerToken, OWN_AUDIENCE);
    if (caller === undefined) throw callerRevoked();
    const { clientId } = caller;
    const own = await verify(subjectToken, undefined);
    // Users and sessions are locked before clients, everywhere, so the subject comes first.
    const [subject, isCallerLive, client, policy] = await Promise.all([
      foreign === undefined ? ownSubject(tx, own) : foreignSubject(tx, foreign),
      isLive(tx, caller),
      tx.clients.lockShared(clientId),
      tx.policy.current(),
    ]);
    // A service may use only tokens that it was called with. Others would let it act at services that it does not serve.
    const isForCaller = subject?.audiences.some((served) => isServedBy(policy, served, clientId)) === true;
    if (subject === undefined || !isForCaller) throw subjectTokenInvalid();
    // A live caller's client is neither disabled nor of another generation: it is in the token's own chain.
    if (!isCallerLive || client === undefined) throw callerRevoked();
    // Otherwise a token that works on one machine alone could be turned into one that works on any.
    const mustBind = subject.certificateThumbprint !== undefined;
    const certificateThumbprint = certificateBindingOf(client, request.certificateThumbprint, mustBind);
    return await mintDelegated(deps, tx, {
      subject,
      client,
      policy,
      audience,
      scopes,
      certificateThumbprint,
    });
  }, turnOf(request.callerId));
}

/** What the new token inherits from the subject token. */
type Subject = Pick<
  VerifiedToken,
  | 'subject'
  | 'sessionId'
  | 'scopes'
  | 'roles'
  | 'audiences'
  | 'clients'
  | 'actors'
  | 'ancestors'
  | 'origin'
  | 'authTimeSeconds'
  | 'expiresAtSeconds'
  | 'certificateThumbprint'
> & {
  /** The roles that the user has now; undefined for a user of another issuer, who has none here. */
  readonly presentRoles: readonly string[] | undefined;
};

/** The subject of a token of this issuer; the token itself is the last of the new token's ancestors. */
async function ownSubject(
  tx: AuthTransaction,
  token: VerifiedToken | undefined,
): Promise<Subject | undefined> {
  if (token === undefined || token.kind !== 'USER') return undefined;
  const [user, isUsable] = await Promise.all([
    // A token without a session is derived from another issuer's. Users are locked before all else, as the check does.
    token.sessionId === undefined ? undefined : tx.users.lockShared(token.subject),
    // A token that lives only by the tolerance for clocks has no time left to pass on.
    isLive(tx, token, { toleranceSeconds: 0 }),
  ]);
  if (!isUsable) return undefined;
  const presentRoles = token.sessionId === undefined ? undefined : (user?.roles ?? []);
  return { ...token, ancestors: [...token.ancestors, token.tokenId], presentRoles };
}

/**
 * The subject of another issuer's token: it has no session and no generation here, and a name that no user of ours can
 * have. A revocation finds the new token by the origin that it carries, even one that is being written at this moment.
 */
async function foreignSubject(
  tx: AuthTransaction,
  token: ForeignToken | 'INVALID',
): Promise<Subject | undefined> {
  if (token === 'INVALID' || token.kind !== 'USER') return undefined;
  const [isRevoked, now] = await Promise.all([tx.tokens.foreignRevoked(token), tx.databaseTime()]);
  if (isRevoked || token.expiresAtSeconds * 1000 <= now.getTime()) return undefined;
  const { issuer, subject, sessionId, tokenId, issuedAtSeconds, revocable } = token;
  return {
    ...token,
    subject: token.id,
    presentRoles: undefined,
    sessionId: undefined,
    clients: [],
    actors: [],
    ancestors: [],
    origin: { issuer, subject, sessionId, tokenId, issuedAtSeconds, revocable },
  };
}

interface Delegation {
  readonly subject: Subject;
  /** The service that is going to act. */
  readonly client: Client;
  readonly policy: Policy;
  readonly audience: string;
  readonly scopes: readonly string[];
  readonly certificateThumbprint: string | undefined;
}

async function mintDelegated(
  { tokens }: ExchangeDeps,
  tx: AuthTransaction,
  delegation: Delegation,
): Promise<MintedToken> {
  const { subject, client, policy, audience, certificateThumbprint } = delegation;
  await requireKnownRights(tx, { scopes: delegation.scopes, audiences: [audience] }, 'audience');
  requireAudience(delegation);
  const scopes = narrowScopes(delegation);
  if (subject.actors.length >= ACTOR_CHAIN_LENGTH_MAX) throw subjectTokenInvalid();
  const session = subject.sessionId && (await tx.sessions.lockShared(subject.sessionId));
  if (!session && subject.origin === undefined) throw subjectTokenInvalid();
  const minted = await tokens.mint(tx, {
    subject: subject.subject,
    clientId: client.clientId,
    audiences: [audience],
    scopes,
    roles: rolesWithin(policy, presentOf(subject.roles, subject.presentRoles), {
      scopes,
      audiences: [audience],
    }),
    clients: [...subject.clients, [client.clientId, client.generation]],
    session: session ? { ...session, authTime: session.createTime } : undefined,
    origin: subject.origin,
    authTimeSeconds: subject.authTimeSeconds,
    actors: [client.clientId, ...subject.actors],
    ancestors: subject.ancestors,
    notAfter: new Date(subject.expiresAtSeconds * 1000),
    certificateThumbprint,
  });
  // Every service would reject it. The values by which the subject token can be revoked may be thousands of characters.
  if (minted.token.length > TOKEN_LENGTH_MAX) throw subjectTokenInvalid();
  return minted;
}

function requireAudience({ subject, client, audience }: Delegation): void {
  // At auth itself, users act only for themselves, and users of other issuers do not act at all.
  const isClosed = subject.origin !== undefined && audience === OWN_AUDIENCE;
  if (isClosed || !client.exchangeAudiences.includes(audience)) {
    throw new AuthError('AUDIENCE_NOT_ALLOWED', `the client may not act for users at ${audience}`);
  }
}

/** The words of the subject token that are among those of the user at present; all, if there is nothing to compare with. */
function presentOf(words: ReadonlySet<string>, present: readonly string[] | undefined): readonly string[] {
  return present === undefined ? [...words] : [...words].filter((word) => present.includes(word));
}

/**
 * The requested scopes, if the subject token has all of them and the client may have them for a user. Without a request,
 * the subject token's scopes for the audience alone: scopes of other services are passed on only on request, by a client
 * that knows that the chain continues. A change of the policy commits before the user's tokens are revoked, so what the
 * roles no longer grant does not count.
 */
function narrowScopes({
  subject,
  client,
  policy,
  audience,
  scopes: requested,
}: Delegation): readonly string[] {
  const mayHave = (scope: string): boolean => client.exchangeScopes?.includes(scope) ?? true;
  const granted = subject.presentRoles && scopesOfRoles(policy, subject.presentRoles);
  const held = new Set(presentOf(subject.scopes, granted));
  for (const scope of requested) {
    if (!subject.scopes.has(scope)) {
      throw new AuthError('SCOPE_MISSING', `the subject token has no scope ${scope}`);
    }
    if (!held.has(scope)) {
      throw new AuthError('SCOPE_MISSING', `the roles of the user no longer grant scope ${scope}`);
    }
    if (!mayHave(scope)) {
      throw new AuthError('SCOPE_MISSING', `the client may not have scope ${scope} for a user`);
    }
  }
  if (requested.length > 0) return requested;
  const scopes = [...held].filter((scope) => audienceOfScope(policy, scope) === audience && mayHave(scope));
  if (scopes.length === 0) {
    throw new AuthError(
      'SCOPE_MISSING',
      `the subject token has no scope for ${audience} that the client may have`,
    );
  }
  return scopes;
}

function subjectTokenInvalid(): ServiceError {
  return new AuthError('SUBJECT_TOKEN_INVALID', 'the subject token cannot be exchanged by this client');
}

/** The guard admitted the caller by its revocation list, and the database is ahead of that list. */
function callerRevoked(): ServiceError {
  return new AuthError('TOKEN_REVOKED', 'the token is no longer valid');
}
