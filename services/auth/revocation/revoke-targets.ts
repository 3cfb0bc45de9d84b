/** The targets of a revocation: what each names, and what revoking it changes beside the log. */

import { invalidField, ServiceError } from '@portcullis/guard/errors';
import { CLAIM_TEXT_LENGTH_MAX } from '@portcullis/guard/limits';
import { hasControlCharacters, isStoredFaithfully } from '../../common/validation/text.js';
import { AuthError } from '../errors.js';
import { revokeKey } from '../keys/revoke-key.js';
import type { ClientRows } from '../records/clients.js';
import type { KeyRows } from '../records/keys.js';
import type { PolicyRows } from '../records/policy.js';
import type { Revocation, RevocationRows, TimedRevocation } from '../records/revocations.js';
import type { NewSecurityEvent, SecurityEventRows, Subject } from '../records/security-events.js';
import type { Session, SessionEnd, SessionRows } from '../records/sessions.js';
import type { UserRows } from '../records/users.js';
import { isRefreshToken } from '../sessions/refresh-tokens.js';
import type { ForeignClaim, UnreadyInstance } from './instance-records.js';
import type { Instances } from './instances.js';
import {
  bytesOfUuid,
  clientRevocation,
  type ForeignTarget,
  foreignRevocation,
  sessionRevocation,
  tokenRevocation,
  userRevocation,
} from './log.js';

/** Longest name of a client or key, and longest issuer or identifier of another issuer, in characters. */
const NAME_CHARACTERS_MAX = 255;

/** What a caller wants to revoke. */
export type Target =
  | { readonly kind: 'token'; readonly token: string }
  | { readonly kind: 'token-id'; readonly tokenId: string }
  | { readonly kind: 'session'; readonly sessionId: string }
  | { readonly kind: 'user'; readonly userId: string }
  | { readonly kind: 'client'; readonly clientId: string }
  | { readonly kind: 'key'; readonly keyId: string }
  | { readonly kind: 'foreign'; readonly foreign: ForeignTarget };

/** A target whose form was checked before a transaction begins. */
export type CheckedTarget =
  | { readonly kind: 'token'; readonly tokenId: string; readonly revocation: TimedRevocation }
  | { readonly kind: 'session'; readonly sessionId: string; readonly revocation: Revocation }
  | { readonly kind: 'user'; readonly userId: string }
  | { readonly kind: 'client'; readonly clientId: string }
  | { readonly kind: 'key'; readonly keyId: string }
  | { readonly kind: 'foreign'; readonly foreign: ForeignTarget; readonly revocation: Revocation };

/** A target whose revocation changes no row but that of a session, so that many share a transaction. */
export type TokenTarget = Extract<CheckedTarget, { readonly kind: 'token' | 'session' | 'foreign' }>;

/** A target that stands for an unknown number of tokens. */
export type AccountTarget = Exclude<CheckedTarget, TokenTarget>;

export function isTokenTarget(target: CheckedTarget): target is TokenTarget {
  return target.kind === 'token' || target.kind === 'session' || target.kind === 'foreign';
}

/** The part of a transaction that revoking uses. */
export interface RevocationTransaction {
  readonly users: Pick<UserRows, 'raiseGeneration'>;
  readonly sessions: Pick<
    SessionRows,
    'endAllOfUser' | 'lockEach' | 'existing' | 'endEach' | 'match' | 'countMatching'
  >;
  readonly clients: Pick<ClientRows, 'raiseGeneration'>;
  readonly policy: Pick<PolicyRows, 'current'>;
  readonly keys: Pick<KeyRows, 'lockCreation' | 'retire' | 'promoteNext'>;
  readonly revocations: RevocationRows;
  readonly events: SecurityEventRows;
}

/** A token of this issuer. */
export interface IdentifiedToken {
  readonly tokenId: string;
  readonly expireTime: Date;
}

/** What the check of a target needs. */
export interface TargetDeps {
  /**
   * Returns the `jti` and the expiry of an access token of this issuer whose signature, issuer and claims are good and
   * which has not expired. Its audience does not matter, nor whether it was revoked before. Throws a ServiceError otherwise.
   */
  readonly identify: (token: string) => Promise<IdentifiedToken>;
  /** Returns the `sid` of a refresh token, used or not; undefined when the token is unknown. */
  readonly sessionIdOf: (refreshToken: string) => Promise<string | undefined>;
  /** This issuer (`iss`). */
  readonly issuer: string;
  /** The other issuers (`iss`) whose tokens are accepted. */
  readonly foreignIssuers: readonly string[];
  /** The JSON Pointers of the claims by which their tokens can be revoked, by issuer; none for a missing issuer. */
  readonly revocableClaims?: ReadonlyMap<string, readonly string[]> | undefined;
  readonly instances: Pick<Instances, 'unready'>;
}

/**
 * Whether auth has found what the target names. It keeps no record of single tokens, nor of what other issuers issue: an
 * entry about them takes effect if the identifier is right.
 */
export function isTargetKnown({ kind }: Target): boolean {
  return kind !== 'token-id' && kind !== 'foreign';
}

/** What one revocation writes: its entry in the log, and its security event. */
export interface AppliedTarget {
  readonly revocation: TimedRevocation;
  readonly event: NewSecurityEvent;
}

/** What all events of one revocation have in common. */
export type RevokedBy = Pick<NewSecurityEvent, 'reason' | 'actor' | 'network'>;

/**
 * Checks a target and brings its identifiers into the one form that tokens have.
 *
 * @throws ServiceError FIELD_INVALID; NOT_FOUND for an unknown refresh token; CLAIM_UNSUPPORTED while an instance cannot
 *   apply a revocation by a claim
 */
export async function checkTarget(deps: TargetDeps, target: Target): Promise<CheckedTarget> {
  switch (target.kind) {
    case 'token':
      return await checkTokenText(deps, target.token);
    case 'token-id':
      return checkedToken(target);
    case 'session':
      return checkedSession(target.sessionId);
    case 'user':
      bytesOfUuid('user_id', target.userId);
      // The entry's key is compared with `sub` byte by byte, so it must have the one spelling that tokens have.
      return { kind: 'user', userId: target.userId.toLowerCase() };
    case 'client':
      return { kind: 'client', clientId: checkName('client_id', target.clientId) };
    case 'key':
      return { kind: 'key', keyId: checkName('key_id', target.keyId) };
    case 'foreign': {
      const { foreign } = target;
      const revocation = checkForeign(deps, foreign);
      if (foreign.what === 'CLAIM') await requireReady(deps.instances, foreign);
      return { kind: 'foreign', foreign, revocation };
    }
  }
}

/** What a target writes that can share a transaction with others, once its session is locked. */
interface GroupedTarget {
  readonly sessionId?: string;
  /** @throws ServiceError NOT_FOUND for an unknown session */
  readonly decide: (
    session: Pick<Session, 'userId'> | undefined,
  ) => AppliedTarget & { readonly why?: SessionEnd };
}

/** Decides what a revocation of a token or a session writes. */
export function groupedTarget(target: TokenTarget, by: RevokedBy): GroupedTarget {
  switch (target.kind) {
    case 'token': {
      const { tokenId, revocation } = target;
      const event = { ...by, type: 'token-revoked', subject: { tokenId }, details: {} } as const;
      return { decide: () => ({ revocation, event }) };
    }
    case 'foreign': {
      const { foreign, revocation } = target;
      return { decide: () => ({ revocation, event: foreignEvent(foreign, by) }) };
    }
    case 'session': {
      const { sessionId, revocation } = target;
      return {
        sessionId,
        // A session that ended before gets another entry: a caller that missed the first answer may send it again.
        decide: (session) => {
          if (session === undefined) throw new AuthError('NOT_FOUND', 'there is no such session');
          const { userId } = session;
          return { revocation, event: sessionsRevoked({ userId, sessionId }, by), why: 'REVOKED' };
        },
      };
    }
  }
}

/**
 * Changes the rows that the target names, and returns what belongs in the log and in the record of events.
 *
 * @throws ServiceError NOT_FOUND for an unknown user, client or key
 */
export async function applyTarget(
  tx: RevocationTransaction,
  target: AccountTarget,
  by: RevokedBy,
): Promise<AppliedTarget> {
  switch (target.kind) {
    case 'user':
      return await applyUser(tx, target.userId, by);
    case 'client':
      return await applyClient(tx, target.clientId, by);
    case 'key': {
      const { keyId } = target;
      const event = { ...by, type: 'key-revoked', subject: { keyId }, details: {} } as const;
      return { revocation: await revokeKey(tx.keys, keyId), event };
    }
  }
}

async function applyUser(tx: RevocationTransaction, userId: string, by: RevokedBy): Promise<AppliedTarget> {
  const generation = await tx.users.raiseGeneration(userId);
  if (generation === undefined) throw new AuthError('NOT_FOUND', 'there is no such user');
  await tx.sessions.endAllOfUser(userId, 'USER_REVOKED');
  return { revocation: userRevocation(userId, generation), event: sessionsRevoked({ userId }, by) };
}

async function applyClient(
  tx: RevocationTransaction,
  clientId: string,
  by: RevokedBy,
): Promise<AppliedTarget> {
  const generation = await tx.clients.raiseGeneration(clientId);
  if (generation === undefined) throw new AuthError('NOT_FOUND', 'there is no such client');
  const event = { ...by, type: 'client-revoked', subject: { clientId }, details: {} } as const;
  return { revocation: clientRevocation(clientId, generation), event };
}

/** A refresh token stands for its session: secret scanners revoke what they find, whichever kind it is. */
async function checkTokenText(deps: TargetDeps, token: string): Promise<CheckedTarget> {
  if (!isRefreshToken(token)) return checkedToken(await identify(deps, token));
  const sessionId = await deps.sessionIdOf(token);
  if (sessionId === undefined)
    throw new AuthError('NOT_FOUND', 'there is no session with this refresh token');
  return checkedSession(sessionId);
}

function checkedSession(text: string): CheckedTarget {
  const sessionId = text.toLowerCase();
  return { kind: 'session', sessionId, revocation: sessionRevocation(sessionId) };
}

function checkedToken({
  tokenId,
  expireTime,
}: Pick<IdentifiedToken, 'tokenId'> & Partial<IdentifiedToken>): CheckedTarget {
  const revocation = { ...tokenRevocation(tokenId), tokenExpireTime: expireTime };
  return { kind: 'token', tokenId: tokenId.toLowerCase(), revocation };
}

function checkForeign(
  { issuer, foreignIssuers, revocableClaims }: TargetDeps,
  target: ForeignTarget,
): Revocation {
  checkName('foreign.issuer', target.issuer);
  // Tokens of this issuer are revoked by generation, which two times within one second cannot confuse.
  if (target.issuer === issuer) throw invalidField('foreign.issuer', 'must be another issuer');
  // A slash too many would name tokens that do not exist, and the receipt would say that all is well.
  if (!foreignIssuers.includes(target.issuer)) {
    const known = foreignIssuers.length === 0 ? 'auth trusts none' : `one of ${foreignIssuers.join(', ')}`;
    throw invalidField('foreign.issuer', `must be a trusted issuer of auth: ${known}`);
  }
  if (target.what === 'CLAIM') {
    const claims = revocableClaims?.get(target.issuer) ?? [];
    // An entry about another claim would revoke every token of the issuer.
    if (!claims.includes(target.claim)) {
      const known = claims.length === 0 ? 'it reads none' : `one of ${claims.join(', ')}`;
      throw invalidField(
        'foreign.claim.claim',
        `must be a claim by which auth is configured to revoke: ${known}`,
      );
    }
    // A value that no token can have.
    if (!isClaimValue(target.id))
      throw invalidField('foreign.claim.value', 'must be a value that a claim can have');
  } else checkName('foreign.what', target.id);
  return foreignRevocation(target);
}

/**
 * Revoking by a claim is refused while an instance would stop serving, because it does not know the kind, or would reject
 * all tokens of the issuer, because it does not read the claim. No promise depends on this check: an instance that it
 * overlooks fails or rejects.
 */
async function requireReady(instances: Pick<Instances, 'unready'>, claim: ForeignClaim): Promise<void> {
  const unready = await instances.unready(claim);
  if (unready.length === 0) return;
  throw new AuthError(
    'CLAIM_UNSUPPORTED',
    `instances that may hold a lease cannot apply it: ${unready.map(unreadyText).join(', ')}`,
  );
}

/** As instances check the texts in claims. */
function isClaimValue(text: string): boolean {
  const hasLength = text.length > 0 && text.length <= CLAIM_TEXT_LENGTH_MAX;
  return hasLength && isStoredFaithfully(text) && !hasControlCharacters(text);
}

function unreadyText({ service, instance, knowsKind }: UnreadyInstance): string {
  const why = knowsKind ? 'does not read the claim' : 'has an older version';
  return `${instance.toString('hex')} of ${service} ${why}`;
}

function checkName(field: string, text: string): string {
  if (text === '' || [...text].length > NAME_CHARACTERS_MAX || text.includes('\0') || !text.isWellFormed()) {
    throw invalidField(field, `must have 1 to ${NAME_CHARACTERS_MAX} characters, none of them NUL`);
  }
  return text;
}

function identify(deps: TargetDeps, token: string): Promise<IdentifiedToken> {
  return deps.identify(token).catch((error: unknown) => {
    if (!(error instanceof ServiceError) || !error.code.startsWith('TOKEN_')) throw error;
    // A reason such as TOKEN_INVALID would say that the caller's own token is bad, and make it log in again.
    throw invalidField(
      'token',
      'must be an access token of this issuer that has not expired, or a refresh token',
    );
  });
}

/** An event whose subject has no session is about all sessions and tokens of the user (CAEP §3.1). */
function sessionsRevoked(subject: Subject, by: RevokedBy): NewSecurityEvent {
  return { ...by, type: 'session-revoked', subject, details: { initiator: 'admin' } };
}

function foreignEvent(target: ForeignTarget, by: RevokedBy): NewSecurityEvent {
  const { issuer, what, id } = target;
  if (target.what === 'CLAIM') {
    const details = { initiator: 'admin', claim: target.claim, value: id } as const;
    return { ...by, type: 'session-revoked', subject: { issuer }, details };
  }
  if (what === 'TOKEN')
    return { ...by, type: 'token-revoked', subject: { issuer, tokenId: id }, details: {} };
  return sessionsRevoked(what === 'SESSION' ? { issuer, sessionId: id } : { issuer, userId: id }, by);
}
