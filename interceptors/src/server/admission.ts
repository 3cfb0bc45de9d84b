/** Decides calls: from the `authorization` header to an admission or a refusal. */

import type { Clock } from '../clock.js';
import { type GuardErrorCode, ServiceError } from '../errors.js';
import { ACCESS_TOKEN_TYPE } from '../limits.js';
import type { Feed } from '../revocation/feed.js';
import { type DenialReason, VerifiedToken, VerifiedTokens } from '../revocation/verified-tokens.js';
import { type ClaimFault, readClaims, type TokenClaims } from '../token/claims.js';
import { parseCompactToken } from '../token/compact.js';
import { KeyRing, type VerificationKeys } from '../token/key-ring.js';
import { parseJsonObject } from '../token/strict-json.js';
import { type ForeignIssuer, issuerNamedIn, type TrustedIssuers } from '../token/trusted-issuers.js';
import { networkOfPeer } from '../wire/networks.js';
import { type AccessRule, describeViolation, violationOf } from './access-rule.js';
import type { LimitName } from './guard-limits.js';
import { KnownNetworks } from './known-networks.js';
import { limitRefusal, type RefusalCode, refusal, sharedRefusal } from './refusals.js';
import { Verifications } from './verifications.js';

/** How many signatures of our own tokens are verified at a time: enough for the thread pool, few enough to wait for. */
const VERIFICATIONS_RUNNING_MAX = 16;

/** The same for another issuer, whose keys may have to be fetched first. */
const FOREIGN_VERIFICATIONS_RUNNING_MAX = 128;

/** The authorization scheme (RFC 6750 §2.1) and one space. The case of a scheme has no meaning (RFC 9110 §11.1). */
const SCHEME = 'Bearer ';
const SCHEME_IN_LOWER_CASE = SCHEME.toLowerCase();

/** What is known about the caller from the connection. */
export interface Caller {
  /** The peer's address and port. */
  getPeer(): string;
  /** Whether the connection is encrypted, or stays on this machine. */
  readonly isPrivate: boolean;
  /** The peer's verified TLS certificate, by its thumbprint (RFC 8705 §3.1); undefined when it showed none. */
  readonly certificateThumbprint: string | undefined;
  /** Asks the peer to open a new connection. */
  retireConnection(): void;
}

/** The decision on a call. */
export type Admission =
  | { readonly kind: 'public'; readonly requestBytesMax: number }
  | {
      readonly kind: 'admitted';
      readonly token: VerifiedToken;
      readonly allowStale: boolean;
      /** Maximum size of a request message, in bytes. */
      readonly requestBytesMax: number;
    }
  | {
      /** It would be refused for this reason, but the guard only observes. */
      readonly kind: 'observed';
      readonly reason: GuardErrorCode;
      /** The token, when it was verified. */
      readonly token: VerifiedToken | undefined;
      readonly requestBytesMax: number;
    }
  | {
      readonly kind: 'refused';
      readonly error: ServiceError<GuardErrorCode>;
      /** The token, when it was verified and refused for another reason. */
      readonly token?: VerifiedToken;
    };

/** A verified token, or the error to refuse it with. */
type Verification = VerifiedToken | ServiceError<GuardErrorCode>;

/** A verification that waits or runs. */
interface PendingVerification {
  readonly result: Promise<Verification>;
  readonly verifications: Verifications;
  /** Ends the wait of each call that has joined it. */
  readonly joined: (() => void)[];
}

/** Decides calls by tokens, keys and rules. How calls are held and cut is the part of guarded-call.ts. */
export class Admissions {
  readonly tokens = new VerifiedTokens();
  /** How many calls with a credential were decided so far. */
  decisions = 0;
  readonly #issuer: string;
  readonly #audience: string;
  readonly #clock: Clock;
  readonly #feed: Feed;
  readonly #trusted: TrustedIssuers | undefined;
  readonly #onTokenInvalid: (fault: string) => void;
  readonly #onVerified: (ms: number) => void;
  readonly #onLimit: (limit: LimitName) => void;
  /** By the text of the token. */
  readonly #pending = new Map<string, PendingVerification>();
  /** The networks from which a valid token has come lately. */
  readonly knownNetworks: KnownNetworks;
  readonly #verifications: Verifications;
  readonly #foreignVerifications = new WeakMap<ForeignIssuer, Verifications>();
  #keys: VerificationKeys = KeyRing.EMPTY;

  constructor(options: {
    issuer: string;
    audience: string;
    clock: Clock;
    feed: Feed;
    /** Other issuers whose tokens are accepted. */
    trusted?: TrustedIssuers | undefined;
    /** A token was rejected; `fault` names the reason, for logs and metrics only. */
    onTokenInvalid: (fault: string) => void;
    /** A signature was verified in so many milliseconds, including the wait for a thread. */
    onVerified?: ((ms: number) => void) | undefined;
    /** A limit has refused a call. */
    onLimit?: ((limit: LimitName) => void) | undefined;
  }) {
    this.#issuer = options.issuer;
    this.#audience = options.audience;
    this.#clock = options.clock;
    this.#feed = options.feed;
    this.#trusted = options.trusted;
    this.#onTokenInvalid = options.onTokenInvalid;
    this.#onVerified = options.onVerified ?? (() => undefined);
    this.#onLimit = options.onLimit ?? (() => undefined);
    this.knownNetworks = new KnownNetworks(options.clock);
    this.#verifications = this.#createVerifications(VERIFICATIONS_RUNNING_MAX);
  }

  #createVerifications(runningMax: number): Verifications {
    return new Verifications(runningMax, (network) => this.knownNetworks.has(network));
  }

  /** Replaces the issuer's key set. */
  replaceKeys(keys: VerificationKeys): void {
    this.#keys = keys;
  }

  /**
   * Decides a call. Claims are cached, decisions are not: every call checks revocation, expiry, lease, rule, and the
   * certificate that the token is bound to. With a cached token the result is synchronous.
   *
   * @param authorizations - the values of all `authorization` headers
   */
  decide(rule: AccessRule, authorizations: readonly unknown[], call: Caller): Admission | Promise<Admission> {
    if (rule.isPublic) return { kind: 'public', requestBytesMax: rule.requestBytesMax };
    const value = authorizations[0];
    if (typeof value !== 'string') return refused('TOKEN_MISSING');
    if (authorizations.length > 1 || !isBearer(value)) {
      this.#onTokenInvalid('authorization');
      return refused('TOKEN_INVALID');
    }
    this.decisions += 1;
    const text = value.slice(SCHEME.length);
    const verified = this.tokens.find(text) ?? this.#verifyNew(text, call.getPeer());
    if (verified instanceof VerifiedToken) return this.#authorize(verified, rule, call);
    if (verified instanceof ServiceError) return { kind: 'refused', error: verified };
    // Every call that waited is checked after the verification: the token may have been revoked meanwhile.
    return verified.then((result) =>
      result instanceof ServiceError
        ? { kind: 'refused', error: result }
        : this.#authorize(result, rule, call),
    );
  }

  /** Why a call with this token must not go on; undefined when it may. */
  denialReason(token: VerifiedToken, allowStale: boolean): DenialReason | undefined {
    // Revocations flag only tokens in the index. A handler may outlive its call and its token's place in the index, so
    // the list is searched instead.
    if (token.revoked || (!token.indexed && this.#isRevoked(token.claims))) return 'TOKEN_REVOKED';
    const wallMs = this.#clock.wallMs();
    if (token.expiresAtMs <= wallMs || token.expiresAtMs <= this.#feed.horizonMs) return 'TOKEN_EXPIRED';
    if (allowStale ? this.#feed.hydrated : this.#feed.leaseLeftMs(this.#clock.monotonicMs(), wallMs) > 0) {
      return undefined;
    }
    return 'REVOCATION_STATE_STALE';
  }

  /** For how many milliseconds a call with this token may go on, if nothing is revoked and no sync succeeds. */
  validForMs(token: VerifiedToken, allowStale: boolean): number {
    const wallMs = this.#clock.wallMs();
    const lifeMs = token.expiresAtMs - wallMs;
    return allowStale ? lifeMs : Math.min(lifeMs, this.#feed.leaseLeftMs(this.#clock.monotonicMs(), wallMs));
  }

  /** Verifies a token that is not in the cache. Concurrent calls with the same token share one verification. */
  #verifyNew(text: string, peer: string): Promise<Verification> | ServiceError<GuardErrorCode> {
    const pending = this.#pending.get(text);
    if (pending !== undefined) return this.#join(pending, peer);
    if (this.#trusted !== undefined && this.#trusted.size > 0) {
      // The issuer is chosen by its name before any key lookup: keys of one issuer never verify tokens of another.
      const issuer = issuerNamedIn(text);
      if (issuer === undefined) return this.#invalid('form');
      const foreign = this.#trusted.find(issuer);
      if (foreign !== undefined) return this.#verifyForeign(foreign, text, peer);
      if (issuer !== this.#issuer) return this.#invalid('iss');
    }
    return this.#verifyOwn(text, peer);
  }

  #verifyOwn(text: string, peer: string): Promise<Verification> | ServiceError<GuardErrorCode> {
    const token = parseCompactToken(text, ACCESS_TOKEN_TYPE);
    if (token === undefined) return this.#invalid('form');
    // A process whose lease is over, or has not begun, may lack a new key, so it cannot call the token invalid.
    if (!this.#keys.has(token.keyId)) {
      return this.#isCurrent() ? this.#invalid('kid') : sharedRefusal('REVOCATION_STATE_STALE');
    }
    const keys = this.#keys;
    return this.#verifyOnce(text, peer, this.#verifications, () =>
      keys
        .verify(token)
        .then((isGood) =>
          isGood ? this.#accept(text, token.payload, token.keyId) : this.#invalid('signature'),
        ),
    );
  }

  #verifyForeign(
    issuer: ForeignIssuer,
    text: string,
    peer: string,
  ): Promise<Verification> | ServiceError<GuardErrorCode> {
    const token = issuer.parse(text);
    if (token === undefined) return this.#invalid('form');
    return this.#verifyOnce(text, peer, this.#verificationsOf(issuer), () =>
      issuer.verify(token).then((verdict) => {
        if (verdict === 'UNKNOWN') return sharedRefusal('DEPENDENCY_UNAVAILABLE');
        if (verdict === 'BAD') return this.#invalid('signature');
        const { verifiedBy } = verdict;
        // The key may have left the set during the verification.
        if (!issuer.has(verifiedBy)) return this.#invalid('kid');
        const nowSeconds = this.#clock.wallMs() / 1000;
        const claims = issuer.read(token, verifiedBy, { nowSeconds, audience: 'OURS' });
        return 'fault' in claims ? this.#invalid(claims.fault) : this.#cache(text, claims);
      }),
    );
  }

  /** Each issuer has its own, so that one whose keys cannot be fetched holds up no other. */
  #verificationsOf(issuer: ForeignIssuer): Verifications {
    let verifications = this.#foreignVerifications.get(issuer);
    if (verifications === undefined) {
      verifications = this.#createVerifications(FOREIGN_VERIFICATIONS_RUNNING_MAX);
      this.#foreignVerifications.set(issuer, verifications);
    }
    return verifications;
  }

  /** Runs one verification for all calls that wait for it, when its turn comes. */
  #verifyOnce(
    text: string,
    peer: string,
    verifications: Verifications,
    verify: () => Promise<Verification>,
  ): Promise<Verification> {
    const beganMs = this.#clock.monotonicMs();
    const joined: (() => void)[] = [];
    const ended = (): void => {
      this.#pending.delete(text);
      for (const leave of joined) leave();
    };
    // Two callbacks instead of `finally`, which would create two more promises for each new token.
    const verification = verifications.run(peer, verify, limitRefusal('verifications')).then(
      (result) => {
        ended();
        this.#verified(peer, beganMs, result);
        return result;
      },
      (error: unknown) => {
        ended();
        throw error;
      },
    );
    this.#pending.set(text, { result: verification, verifications, joined });
    return verification;
  }

  /** Waits for the verification of an earlier call with the same token. */
  #join(
    { result, verifications, joined }: PendingVerification,
    peer: string,
  ): Promise<Verification> | ServiceError<GuardErrorCode> {
    const leave = verifications.join(peer);
    if (leave === undefined) {
      this.#onLimit('verifications');
      return limitRefusal('verifications');
    }
    joined.push(leave);
    return result;
  }

  #verified(peer: string, beganMs: number, result: Verification): void {
    if (result === limitRefusal('verifications')) {
      this.#onLimit('verifications');
      return;
    }
    this.#onVerified(this.#clock.monotonicMs() - beganMs);
    // A token that leaked after its time, or was revoked, must not buy the share that is kept for callers with rights.
    if (result instanceof VerifiedToken && this.denialReason(result, true) === undefined) {
      this.knownNetworks.add(networkOfPeer(peer));
    }
  }

  /**
   * Verifies a token that is not this call's credential, for another audience perhaps (RFC 7662). It is not cached, and
   * the lease is not checked.
   *
   * @param audience - the audience that the token must have; any when undefined
   * @returns its claims, or TOKEN_INVALID, TOKEN_EXPIRED or TOKEN_REVOKED
   */
  async introspect(
    text: string,
    audience: string | undefined,
  ): Promise<TokenClaims | ServiceError<GuardErrorCode>> {
    const token = parseCompactToken(text, ACCESS_TOKEN_TYPE);
    if (token === undefined || !(await this.#keys.verify(token))) return refusal('TOKEN_INVALID');
    const claims = this.#claimsOf(token.payload, token.keyId, audience);
    if ('fault' in claims) return refusal('TOKEN_INVALID');
    const reason = this.denialReason(new VerifiedToken(text, claims), true);
    return reason === undefined ? claims : refusal(reason);
  }

  #isCurrent(): boolean {
    return this.#feed.leaseLeftMs(this.#clock.monotonicMs(), this.#clock.wallMs()) > 0;
  }

  /** Checks the claims of a token whose signature is valid, and caches the token. */
  #accept(text: string, payload: Uint8Array, keyId: string): Verification {
    const claims = this.#claimsOf(payload, keyId, this.#audience);
    if ('fault' in claims) return this.#invalid(claims.fault);
    // The key may have left the set during the verification.
    if (!this.#keys.has(keyId)) return this.#invalid('kid');
    return this.#cache(text, claims);
  }

  /**
   * Checks the revocation list and adds the token to the index, in one turn of the event loop. A revocation that arrived
   * during the verification is in the list; one that arrives later finds the token in the index.
   */
  #cache(text: string, claims: TokenClaims): VerifiedToken {
    const token = new VerifiedToken(text, claims);
    token.revoked = this.#feed.list.revokes(claims);
    if (token.expiresAtMs > this.#clock.wallMs()) this.tokens.add(token);
    return token;
  }

  #isRevoked(claims: TokenClaims): boolean {
    const keys = claims.isForeign ? this.#trusted?.find(claims.issuer) : this.#keys;
    return this.#feed.list.revokes(claims) || keys?.has(claims.keyId) !== true;
  }

  #claimsOf(payload: Uint8Array, keyId: string, audience: string | undefined): TokenClaims | ClaimFault {
    const json = parseJsonObject(payload);
    if (json === undefined) return { fault: 'payload' };
    const nowSeconds = this.#clock.wallMs() / 1000;
    return readClaims(json, keyId, { issuer: this.#issuer, audience, nowSeconds });
  }

  #authorize(token: VerifiedToken, rule: AccessRule, call: Caller): Admission {
    token.used = true;
    const bound = token.claims.certificateThumbprint;
    if (bound !== undefined && bound !== call.certificateThumbprint) {
      // The rightful client may have renewed its certificate since it connected; a new connection will show it. The
      // response does not reveal the cause.
      call.retireConnection();
      return { kind: 'refused', error: this.#invalid('cnf') };
    }
    const reason = this.denialReason(token, rule.allowStale);
    if (reason !== undefined) return { ...refused(reason), token };
    // Few rules need the time, and reading a clock is a good part of the cost of this check.
    const nowSeconds = rule.maxAuthAgeSeconds === undefined ? 0 : this.#clock.wallMs() / 1000;
    const violation = violationOf(rule, token.claims, nowSeconds);
    if (violation !== undefined) return { kind: 'refused', error: describeViolation(violation, rule), token };
    return {
      kind: 'admitted',
      token,
      allowStale: rule.allowStale,
      requestBytesMax: rule.requestBytesMax,
    };
  }

  /** One error for every bad token: the log and the metrics get the fault, the caller does not. */
  #invalid(fault: string): ServiceError<GuardErrorCode> {
    this.#onTokenInvalid(fault);
    return sharedRefusal('TOKEN_INVALID');
  }
}

function refused(code: RefusalCode): Extract<Admission, { kind: 'refused' }> {
  return { kind: 'refused', error: sharedRefusal(code) };
}

function isBearer(authorization: string): boolean {
  // Nearly all clients use the spelling of the RFC, and only others pay for a copy in lower case.
  return (
    authorization.startsWith(SCHEME) ||
    authorization.slice(0, SCHEME.length).toLowerCase() === SCHEME_IN_LOWER_CASE
  );
}
