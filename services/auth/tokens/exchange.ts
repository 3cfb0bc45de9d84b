/** Acting for a user: a service trades the token it was called with for a narrower one (RFC 8693). */

import type { ServiceError } from '@portcullis/guard/errors';
import { parseWords } from '../../common/validation/words.js';
import { audienceOfScope, OWN_AUDIENCE } from '../accounts/roles.js';
import { bindingOf } from '../clients/clients.js';
import { AuthError } from '../errors.js';
import type { Client } from '../records/clients.js';
import { CLOCK_SKEW_SECONDS } from '../revocation/log.js';
import type { AuthStore, AuthTransaction } from '../transaction.js';
import {
  ACTOR_CHAIN_LENGTH_MAX,
  type ForeignToken,
  type ForeignTokens,
  isLive,
  type MintedToken,
  type Tokens,
  type VerifiedToken,
} from './tokens.js';

/** Trades and explains tokens. */
export interface Exchange {
  /**
   * A token with which the calling service acts for the user: for one service, with scopes that the
   * subject token has, no longer alive than it, and dead with it, with its session, its user and
   * every client of the chain. When the subject token is bound to a certificate, or the service's tokens are, it is
   * bound to the service's.
   *
   * @throws ServiceError SUBJECT_TOKEN_INVALID whatever is wrong with the subject token;
   *   AUDIENCE_NOT_ALLOWED, SCOPE_MISSING for more than there is; TOKEN_REVOKED when the caller's own
   *   token is no longer good; CERTIFICATE_REQUIRED; FIELD_INVALID
   */
  exchange(request: {
    /** The token that the service called with. */
    callerToken: string;
    subjectToken: string;
    audience: string;
    scopes: readonly string[];
    /** The certificate that the service has shown, if any. */
    certificateThumbprint?: string | undefined;
  }): Promise<MintedToken>;
  /** What a token says at this moment; undefined when it is not good, whatever the reason. */
  introspect(token: string): Promise<VerifiedToken | undefined>;
  /**
   * The `jti` of a token of this issuer that has not expired, whether or not it was revoked.
   *
   * @throws ServiceError TOKEN_INVALID, TOKEN_EXPIRED
   */
  tokenIdOf(token: string): Promise<string>;
}

/** What {@link createExchange} needs. */
export interface ExchangeDeps {
  readonly store: AuthStore;
  readonly tokens: Tokens;
  readonly foreignTokens: Pick<ForeignTokens, 'verify'>;
}

/** The exchange of this issuer. It asks the database, never this process's own revocation list. */
export function createExchange({ store, tokens, foreignTokens }: ExchangeDeps): Exchange {
  return {
    exchange: async ({ callerToken, subjectToken, certificateThumbprint, ...request }) => {
      const scopes = parseWords('scopes', request.scopes);
      const [audience = ''] = parseWords('audience', [request.audience]);
      // Before the transaction: its issuer's keys may have to be waited for.
      const foreign = await foreignTokens.verify(subjectToken);
      return await store.transaction(async (tx) => {
        const verify = await tokens.verifierIn(tx);
        const caller = await verify(callerToken, OWN_AUDIENCE);
        if (caller === undefined) throw callerRevoked();
        const { clientId } = caller;
        const own = foreign === undefined ? await verify(subjectToken, clientId) : undefined;
        // Users and sessions are locked before clients, everywhere: the subject comes first.
        const [subject, isCallerLive, client] = await Promise.all([
          foreign === undefined ? ownSubject(tx, own) : foreignSubject(tx, foreign, clientId),
          isLive(tx, caller),
          tx.clients.lockShared(clientId),
        ]);
        if (subject === undefined) throw subjectTokenInvalid();
        if (!isCallerLive || client === undefined || client.disabled) throw callerRevoked();
        return await mintDelegated(tokens, tx, {
          subject,
          client,
          audience,
          scopes,
          // What only one machine could use must not become what everybody can use who holds it.
          certificateThumbprint: bindingOf(
            client,
            certificateThumbprint,
            subject.certificateThumbprint !== undefined,
          ),
        });
      });
    },
    introspect: (token) =>
      store.transaction(async (tx) => {
        const verify = await tokens.verifierIn(tx);
        const verified = await verify(token, undefined);
        return verified !== undefined && (await isLive(tx, verified)) ? verified : undefined;
      }),
    tokenIdOf: (token) =>
      store.transaction(async (tx) => {
        const verify = await tokens.verifierIn(tx);
        const verified = await verify(token, undefined);
        if (verified === undefined) throw new AuthError('TOKEN_INVALID', 'the token is not valid');
        // Instances admit it for as long as their clocks may differ, so it can be revoked for as long.
        const goneMs = (verified.expiresAtSeconds + CLOCK_SKEW_SECONDS) * 1000;
        if (goneMs <= (await tx.databaseTime()).getTime()) {
          throw new AuthError('TOKEN_EXPIRED', 'the token has expired');
        }
        return verified.tokenId;
      }),
  };
}

/** What an exchanged token takes from the one that it is exchanged for. */
type Subject = Pick<
  VerifiedToken,
  | 'subject'
  | 'sessionId'
  | 'scopes'
  | 'roles'
  | 'clients'
  | 'actors'
  | 'ancestors'
  | 'origin'
  | 'authTimeSeconds'
  | 'expiresAtSeconds'
  | 'certificateThumbprint'
>;

/** Its ancestors are all that the new token will have. */
async function ownSubject(
  tx: AuthTransaction,
  token: VerifiedToken | undefined,
): Promise<Subject | undefined> {
  if (token === undefined || token.kind !== 'USER' || !(await isLive(tx, token))) return undefined;
  return { ...token, ancestors: [...token.ancestors, token.tokenId] };
}

/**
 * A user of another issuer is nobody of ours: without session or generation here, under a name that nobody of ours can
 * have. What revokes the token is found by the origin that the new one carries, also when it is written at this moment.
 */
async function foreignSubject(
  tx: AuthTransaction,
  token: ForeignToken | 'INVALID',
  clientId: string,
): Promise<Subject | undefined> {
  if (token === 'INVALID' || token.kind !== 'USER' || !token.isFor(clientId)) return undefined;
  const [isRevoked, now] = await Promise.all([tx.tokens.foreignRevoked(token), tx.databaseTime()]);
  if (isRevoked || token.expiresAtSeconds * 1000 <= now.getTime()) return undefined;
  const { issuer, subject, sessionId, tokenId, issuedAtSeconds } = token;
  return {
    ...token,
    subject: token.id,
    sessionId: undefined,
    clients: [],
    actors: [],
    ancestors: [],
    origin: { issuer, subject, sessionId, tokenId, issuedAtSeconds },
  };
}

async function mintDelegated(
  tokens: Tokens,
  tx: AuthTransaction,
  wanted: {
    subject: Subject;
    client: Client;
    audience: string;
    scopes: readonly string[];
    certificateThumbprint: string | undefined;
  },
): Promise<MintedToken> {
  const { subject, client, audience, certificateThumbprint } = wanted;
  // Here users act for themselves alone, and only those whom we know.
  const isClosed = subject.origin !== undefined && audience === OWN_AUDIENCE;
  if (isClosed || !client.exchangeAudiences.includes(audience)) {
    throw new AuthError('AUDIENCE_NOT_ALLOWED', `the client may not act for users at ${audience}`);
  }
  const scopes = narrow(subject, client, audience, wanted.scopes);
  if (subject.actors.length >= ACTOR_CHAIN_LENGTH_MAX) throw subjectTokenInvalid();
  const session = subject.sessionId && (await tx.sessions.lockShared(subject.sessionId));
  if (!session && subject.origin === undefined) throw subjectTokenInvalid();
  return await tokens.mint(tx, {
    subject: subject.subject,
    clientId: client.clientId,
    audiences: [audience],
    scopes,
    roles: [...subject.roles],
    clients: [...subject.clients, [client.clientId, client.generation]],
    session: session ? { ...session, authTime: session.createTime } : undefined,
    origin: subject.origin,
    authTimeSeconds: subject.authTimeSeconds,
    actors: [client.clientId, ...subject.actors],
    ancestors: subject.ancestors,
    notAfter: new Date(subject.expiresAtSeconds * 1000),
    certificateThumbprint,
  });
}

/**
 * What is asked for, if the subject token has all of it and the client may have it for a user. Without a wish, what is
 * left of its scopes for the audience alone: the other ones are passed on only where somebody knows that the chain
 * goes further.
 */
function narrow(
  subject: Subject,
  client: Client,
  audience: string,
  wanted: readonly string[],
): readonly string[] {
  const mayHave = (scope: string): boolean => client.exchangeScopes?.includes(scope) ?? true;
  for (const scope of wanted) {
    if (!subject.scopes.has(scope)) {
      throw new AuthError('SCOPE_MISSING', `the subject token has no scope ${scope}`);
    }
    if (!mayHave(scope)) {
      throw new AuthError('SCOPE_MISSING', `the client may not have scope ${scope} for a user`);
    }
  }
  if (wanted.length > 0) return wanted;
  const scopes = [...subject.scopes].filter((scope) => audienceOfScope(scope) === audience && mayHave(scope));
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

/** The guard admitted the caller by its list; the database knows better. */
function callerRevoked(): ServiceError {
  return new AuthError('TOKEN_REVOKED', 'the token is no longer valid');
}
