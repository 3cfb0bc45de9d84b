/** Where a call is decided: from the `authorization` header to admitted or refused. */

import type { Metadata } from '@grpc/grpc-js';
import type { Clock } from '../clock.js';
import { type GuardErrorCode, ServiceError } from '../errors.js';
import { ACCESS_TOKEN_TYPE } from '../limits.js';
import type { Feed } from '../revocation/feed.js';
import { type CutReason, VerifiedToken, VerifiedTokens } from '../revocation/verified-tokens.js';
import { type ClaimFault, readClaims, type TokenClaims } from '../token/claims.js';
import { parseCompactToken } from '../token/compact.js';
import { KeyRing, type VerificationKeys } from '../token/key-ring.js';
import { parseJsonObject } from '../token/strict-json.js';
import { type ForeignIssuer, issuerNamedIn, type TrustedIssuers } from '../token/trusted-issuers.js';
import { type AccessRule, describeViolation, violationOf } from './access-rule.js';
import { type Admission, refusal, sharedRefusal } from './guarded-call.js';

/** How many signatures may wait for verification at once. */
export const VERIFICATIONS_MAX = 1024;

/** How many of them one peer may have. */
export const VERIFICATIONS_PER_PEER_MAX = 256;

const SCHEME = 'Bearer ';

/** Whoever calls, by the connection. */
export interface Caller {
  /** Its address. */
  getPeer(): string;
  /** The certificate that it has shown, by its thumbprint (RFC 8705 §3.1); undefined when there is none. */
  readonly certificateThumbprint: string | undefined;
  /** Asks it to make a new connection. */
  retireConnection(): void;
}

/** Decides calls. Knows the tokens, the keys and the rules; knows nothing of how calls are held or cut. */
export class Admissions {
  readonly tokens = new VerifiedTokens();
  /** How many calls have shown a credential so far. */
  decisions = 0;
  readonly #issuer: string;
  readonly #audience: string;
  readonly #clock: Clock;
  readonly #feed: Feed;
  readonly #trusted: TrustedIssuers | undefined;
  readonly #onTokenInvalid: (fault: string) => void;
  readonly #onVerified: (ms: number) => void;
  readonly #underWay = new Map<string, Promise<VerifiedToken | ServiceError<GuardErrorCode>>>();
  readonly #waitingByPeer = new Map<string, number>();
  #keys: VerificationKeys = KeyRing.EMPTY;

  constructor(options: {
    issuer: string;
    audience: string;
    clock: Clock;
    feed: Feed;
    /** Other issuers whose tokens are taken. */
    trusted?: TrustedIssuers | undefined;
    onTokenInvalid: (fault: string) => void;
    /** A signature was verified, and how long that took, the wait for a thread included. */
    onVerified?: ((ms: number) => void) | undefined;
  }) {
    this.#issuer = options.issuer;
    this.#audience = options.audience;
    this.#clock = options.clock;
    this.#feed = options.feed;
    this.#trusted = options.trusted;
    this.#onTokenInvalid = options.onTokenInvalid;
    this.#onVerified = options.onVerified ?? (() => undefined);
  }

  /** Puts another key set in place. */
  useKeys(keys: VerificationKeys): void {
    this.#keys = keys;
  }

  /** Whether a key with this identifier may verify tokens now. */
  hasKey(keyId: string): boolean {
    return this.#keys.has(keyId);
  }

  /**
   * Decides a call. Claims are remembered, verdicts never: revocation, expiry, lease and rule are
   * looked at on every call, and so is the certificate that a token is bound to. With a known token nothing here is
   * asynchronous.
   */
  decide(rule: AccessRule, metadata: Metadata, call: Caller): Admission | Promise<Admission> {
    if (rule.isPublic) return { kind: 'public' };
    const values = metadata.get('authorization');
    const value = values[0];
    if (value === undefined) return refused('TOKEN_MISSING');
    if (values.length > 1 || typeof value !== 'string' || !value.startsWith(SCHEME)) {
      this.#onTokenInvalid('authorization');
      return refused('TOKEN_INVALID');
    }
    this.decisions += 1;
    const text = value.slice(SCHEME.length);
    const known = this.tokens.find(text);
    if (known !== undefined) return this.#judge(known, rule, call);
    return this.#meet(text, rule, call);
  }

  /** Why a token that was admitted no longer counts. */
  objectionTo(token: VerifiedToken, allowStale: boolean): CutReason | undefined {
    // A token that was forgotten is no longer flagged by what revokes it: a handler that outlives
    // its call would be told for ever that its caller may be relied on.
    if (token.revoked || (!token.indexed && this.#isRevokedNow(token.claims))) return 'TOKEN_REVOKED';
    const wallMs = this.#clock.wallMs();
    if (token.expiresAtMs <= wallMs || token.expiresAtMs <= this.#feed.horizonMs) return 'TOKEN_EXPIRED';
    if (allowStale ? this.#feed.hydrated : this.#feed.leaseLeftMs(this.#clock.monotonicMs(), wallMs) > 0) {
      return undefined;
    }
    return 'REVOCATION_STATE_STALE';
  }

  /** For how many milliseconds a token that counts now may be relied on. */
  reliableMs(token: VerifiedToken, allowStale: boolean): number {
    const wallMs = this.#clock.wallMs();
    const lifeMs = token.expiresAtMs - wallMs;
    return allowStale ? lifeMs : Math.min(lifeMs, this.#feed.leaseLeftMs(this.#clock.monotonicMs(), wallMs));
  }

  /**
   * The verified token with this text. Many callers with the same new token share one verification.
   *
   * @returns the error instead, when it is not a token of ours for this service
   */
  verified(
    text: string,
    peer: string,
  ): VerifiedToken | Promise<VerifiedToken | ServiceError<GuardErrorCode>> | ServiceError<GuardErrorCode> {
    const known = this.tokens.find(text);
    if (known !== undefined) return known;
    const underWay = this.#underWay.get(text);
    if (underWay !== undefined) return underWay;
    if (this.#trusted !== undefined && this.#trusted.size > 0) {
      // By its name alone, before any key is looked at: what one issuer signs is never tried with another's keys.
      const issuer = issuerNamedIn(text);
      const foreign = issuer === undefined ? undefined : this.#trusted.find(issuer);
      if (foreign !== undefined) return this.#verifyForeign(foreign, text, peer);
      if (issuer !== this.#issuer) return this.#invalid(issuer === undefined ? 'form' : 'iss');
    }
    const token = parseCompactToken(text, ACCESS_TOKEN_TYPE);
    if (token === undefined) return this.#invalid('form');
    // Without keys nothing can be said of any token: the process has not yet heard from its issuer.
    if (this.#keys === KeyRing.EMPTY) return sharedRefusal('REVOCATION_STATE_STALE');
    // A process that is cut off may have missed the key: then it cannot say that the token is bad.
    if (!this.#keys.has(token.keyId)) {
      return this.#isCurrent() ? this.#invalid('kid') : sharedRefusal('REVOCATION_STATE_STALE');
    }
    const keys = this.#keys;
    return this.#underVerification(text, peer, () =>
      keys
        .verify(token)
        .then((isGood) =>
          isGood ? this.#remember(text, token.payload, token.keyId) : this.#invalid('signature'),
        ),
    );
  }

  #verifyForeign(
    issuer: ForeignIssuer,
    text: string,
    peer: string,
  ): Promise<VerifiedToken | ServiceError<GuardErrorCode>> | ServiceError<GuardErrorCode> {
    const token = issuer.parse(text);
    if (token === undefined) return this.#invalid('form');
    return this.#underVerification(text, peer, () =>
      issuer.verify(token).then((verdict) => {
        if (verdict === 'UNKNOWN') return sharedRefusal('DEPENDENCY_UNAVAILABLE');
        if (verdict === 'BAD' || !issuer.has(token.keyId)) return this.#invalid('signature');
        const claims = issuer.read(token, this.#clock.wallMs() / 1000, 'OURS');
        return 'fault' in claims ? this.#invalid(claims.fault) : this.#add(text, claims);
      }),
    );
  }

  /** Verifies at a time what may be verified at a time; many callers with one token share its verification. */
  #underVerification(
    text: string,
    peer: string,
    verify: () => Promise<VerifiedToken | ServiceError<GuardErrorCode>>,
  ): Promise<VerifiedToken | ServiceError<GuardErrorCode>> | ServiceError<GuardErrorCode> {
    const waiting = this.#waitingByPeer.get(peer) ?? 0;
    if (this.#underWay.size >= VERIFICATIONS_MAX || waiting >= VERIFICATIONS_PER_PEER_MAX) {
      return sharedRefusal('RATE_LIMITED');
    }
    this.#waitingByPeer.set(peer, waiting + 1);
    const beganMs = this.#clock.monotonicMs();
    const ended = (): void => {
      this.#onVerified(this.#clock.monotonicMs() - beganMs);
      this.#underWay.delete(text);
      const left = (this.#waitingByPeer.get(peer) ?? 1) - 1;
      if (left === 0) this.#waitingByPeer.delete(peer);
      else this.#waitingByPeer.set(peer, left);
    };
    // One promise for all that is waited for: `finally` would make two more, for each new token.
    const verification = verify().then(
      (result) => {
        ended();
        return result;
      },
      (error: unknown) => {
        ended();
        throw error;
      },
    );
    this.#underWay.set(text, verification);
    return verification;
  }

  /**
   * Examines a token that was not sent as a credential, for another audience perhaps. It is not
   * remembered, and the lease is not asked for: whoever examines tokens decides what else must hold.
   *
   * @param audience - who the token must be for; anyone when undefined
   * @returns its claims, or TOKEN_INVALID, TOKEN_EXPIRED or TOKEN_REVOKED
   */
  async examine(
    text: string,
    audience: string | undefined,
  ): Promise<TokenClaims | ServiceError<GuardErrorCode>> {
    const token = parseCompactToken(text, ACCESS_TOKEN_TYPE);
    if (token === undefined || !(await this.#keys.verify(token))) return refusal('TOKEN_INVALID');
    const claims = this.#claimsOf(token.payload, token.keyId, audience);
    if ('fault' in claims) return refusal('TOKEN_INVALID');
    const objection = this.objectionTo(new VerifiedToken(text, claims), true);
    return objection === undefined ? claims : refusal(objection);
  }

  #isCurrent(): boolean {
    return this.#feed.leaseLeftMs(this.#clock.monotonicMs(), this.#clock.wallMs()) > 0;
  }

  #meet(text: string, rule: AccessRule, call: Caller): Admission | Promise<Admission> {
    const verified = this.verified(text, call.getPeer());
    if (verified instanceof ServiceError) return { kind: 'refused', error: verified };
    if (verified instanceof VerifiedToken) return this.#judge(verified, rule, call);
    // Everybody who waited for the same verification is judged after it: it may have been revoked
    // meanwhile.
    return verified.then((result) =>
      result instanceof ServiceError ? { kind: 'refused', error: result } : this.#judge(result, rule, call),
    );
  }

  /**
   * Reads the claims, and looks the token up in the revocation list in the same turn in which it
   * enters the index: a revocation that arrived while the signature was verified is in the list by
   * now, and one that arrives later finds the token in the index.
   */
  #remember(text: string, payload: Uint8Array, keyId: string): VerifiedToken | ServiceError<GuardErrorCode> {
    const claims = this.#claimsOf(payload, keyId, this.#audience);
    if ('fault' in claims) return this.#invalid(claims.fault);
    // The key may have left the set while it was in use.
    if (!this.#keys.has(keyId)) return this.#invalid('kid');
    return this.#add(text, claims);
  }

  #add(text: string, claims: TokenClaims): VerifiedToken {
    const token = new VerifiedToken(text, claims);
    token.revoked = this.#feed.list.revokes(claims);
    if (token.expiresAtMs > this.#clock.wallMs()) this.tokens.add(token);
    return token;
  }

  #isRevokedNow(claims: TokenClaims): boolean {
    const keys = claims.isForeign ? this.#trusted?.find(claims.issuer) : this.#keys;
    return this.#feed.list.revokes(claims) || keys?.has(claims.keyId) !== true;
  }

  #claimsOf(payload: Uint8Array, keyId: string, audience: string | undefined): TokenClaims | ClaimFault {
    const json = parseJsonObject(payload);
    if (json === undefined) return { fault: 'payload' };
    const nowSeconds = this.#clock.wallMs() / 1000;
    return readClaims(json, keyId, { issuer: this.#issuer, audience, nowSeconds });
  }

  #judge(token: VerifiedToken, rule: AccessRule, call: Caller): Admission {
    token.used = true;
    const bound = token.claims.certificateThumbprint;
    if (bound !== undefined && bound !== call.certificateThumbprint) {
      // Its owner may have renewed the certificate since the connection was made; a new one shows it. A thief is
      // none the wiser.
      call.retireConnection();
      return { kind: 'refused', error: this.#invalid('cnf') };
    }
    const objection = this.objectionTo(token, rule.allowStale);
    if (objection !== undefined) return { ...refused(objection), token };
    // Few rules ask for the time, and reading a clock is a good part of what all this costs.
    const nowSeconds = rule.maxAuthAgeSeconds === undefined ? 0 : this.#clock.wallMs() / 1000;
    const violation = violationOf(rule, token.claims, nowSeconds);
    if (violation !== undefined) return { kind: 'refused', error: describeViolation(violation, rule), token };
    return { kind: 'admitted', token, allowStale: rule.allowStale };
  }

  /** One answer for every bad token: the caller learns nothing of what was wrong; the log does. */
  #invalid(fault: string): ServiceError<GuardErrorCode> {
    this.#onTokenInvalid(fault);
    return sharedRefusal('TOKEN_INVALID');
  }
}

function refused(code: Parameters<typeof refusal>[0]): Extract<Admission, { kind: 'refused' }> {
  return { kind: 'refused', error: sharedRefusal(code) };
}
