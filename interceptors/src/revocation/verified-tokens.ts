/** The cache of verified tokens: each token is verified once, and found by the entries that revoke it. */

import { type Entry, EntryKind } from '../../gen/portcullis/revocation/v1/revocation.js';
import { CLOCK_SKEW_SECONDS } from '../limits.js';
import type { TokenClaims, TokenOrigin } from '../token/claims.js';
import { ClaimIndex } from './claim-index.js';
import { foreignKey, foreignKeysOf, isForeignKind, isRevokedBy, textOf, uuidOf } from './list.js';

/** Maximum number of cached tokens. Tokens with live calls are not evicted. */
const VERIFIED_TOKENS_MAX = 100_000;

/** Minimum number of buckets, and the factor by which it grows when there are more tokens; powers of two. */
const BUCKETS_MIN = 1024;
const BUCKETS_GROWTH = 4;

/** Maximum number of tokens that are examined to evict one. */
const EVICTION_STEPS_MAX = 32;

/** Why a live call must not go on. */
export type DenialReason = 'TOKEN_REVOKED' | 'TOKEN_EXPIRED' | 'REVOCATION_STATE_STALE';

/** An admitted call that has not ended: a member of the linked list of its token's calls. */
export interface LiveCall {
  previousLive: LiveCall | undefined;
  nextLive: LiveCall | undefined;
  /** Repeats the check, and ends the call when it fails. */
  recheck(): void;
}

/** What counts the calls of a principal, shared by its tokens. */
export interface TokenHolder {
  /** Number of cached tokens that share it. */
  tokens: number;
}

/** A token whose signature and claims are valid. */
export class VerifiedToken {
  readonly text: string;
  readonly claims: TokenClaims;
  /** When it expires, in wall-clock milliseconds, including the clock skew. */
  readonly expiresAtMs: number;
  /** It was revoked; never becomes false again. */
  revoked = false;
  /** It is in the index, where revocations find it. Otherwise the revocation list must be searched. */
  indexed = false;
  /** Used since eviction last examined it. */
  used = true;
  /** Number of calls admitted since the last report. */
  calls = 0;
  /** The address of the last call, and those of other calls since the last report. */
  address = '';
  otherAddresses: Set<string> | undefined;
  /** What counts the calls of its principal; undefined until the first call. */
  holder: TokenHolder | undefined;
  /** The head of the list of its live calls. */
  firstCall: LiveCall | undefined;
  /** The next token in the same bucket. */
  nextInBucket: VerifiedToken | undefined;

  constructor(text: string, claims: TokenClaims) {
    this.text = compactCopy(text);
    this.claims = claims;
    this.expiresAtMs = (claims.expiresAtSeconds + CLOCK_SKEW_SECONDS) * 1000;
  }

  link(call: LiveCall): void {
    call.nextLive = this.firstCall;
    if (this.firstCall !== undefined) this.firstCall.previousLive = call;
    this.firstCall = call;
  }

  unlink(call: LiveCall): void {
    if (call.previousLive !== undefined) call.previousLive.nextLive = call.nextLive;
    else if (this.firstCall === call) this.firstCall = call.nextLive;
    if (call.nextLive !== undefined) call.nextLive.previousLive = call.previousLive;
    call.previousLive = undefined;
    call.nextLive = undefined;
  }

  /** A snapshot of its live calls. */
  liveCalls(): LiveCall[] {
    const calls: LiveCall[] = [];
    for (let call = this.firstCall; call !== undefined; call = call.nextLive) calls.push(call);
    return calls;
  }
}

type Index = Map<string, VerifiedToken | Set<VerifiedToken>>;

/** The verified tokens, found by text for a call, and by identifier for a revocation. */
export class VerifiedTokens {
  // Linked lists. An array costs a call one access to cold memory where a Map costs two.
  #buckets = emptyBuckets(BUCKETS_MIN);
  readonly #all = new Set<VerifiedToken>();
  readonly #byTokenId: Index = new Map();
  readonly #bySession: Index = new Map();
  readonly #bySubject: Index = new Map();
  // By the keys of another issuer's entries, for tokens derived from its tokens.
  readonly #byOrigin: Index = new Map();
  readonly #byClaim = new ClaimIndex<VerifiedToken>();
  readonly #byExpiry = new Map<number, Set<VerifiedToken>>();
  readonly #max: number;

  constructor(max: number = VERIFIED_TOKENS_MAX) {
    this.#max = max;
  }

  get size(): number {
    return this.#all.size;
  }

  all(): Iterable<VerifiedToken> {
    return this.#all;
  }

  /**
   * Finds a verified token by its text. Hashing the whole text would cost more than the rest of the warm path, so a few
   * characters of the signature select the bucket, and the whole text is compared.
   */
  find(text: string): VerifiedToken | undefined {
    let token = this.#buckets[hashOf(text) & (this.#buckets.length - 1)];
    while (token !== undefined && token.text !== text) token = token.nextInBucket;
    return token;
  }

  /**
   * Adds a token. The caller must have checked the revocation list in the same turn of the event loop, so that no
   * revocation comes between the check and the index.
   */
  add(token: VerifiedToken): void {
    if (this.#all.size >= this.#max) this.#evictOne();
    if (this.#all.size >= this.#buckets.length) this.#growBuckets();
    this.#bucket(token);
    this.#all.add(token);
    token.indexed = true;
    const { claims } = token;
    insert(this.#byTokenId, claims.tokenId, token);
    for (const ancestor of claims.ancestors) insert(this.#byTokenId, ancestor, token);
    if (claims.sessionId !== undefined) insert(this.#bySession, claims.sessionId, token);
    insert(this.#bySubject, claims.subject, token);
    for (const key of originKeysOf(token)) insert(this.#byOrigin, key, token);
    const foreign = foreignRootOf(token);
    if (foreign !== undefined) this.#byClaim.add(foreign, token);
    const expiring = this.#byExpiry.get(token.expiresAtMs);
    if (expiring === undefined) this.#byExpiry.set(token.expiresAtMs, new Set([token]));
    else expiring.add(token);
  }

  /** Removes a token; its next call verifies it again. */
  remove(token: VerifiedToken): void {
    if (!this.#all.delete(token)) return;
    token.indexed = false;
    if (token.holder !== undefined) token.holder.tokens -= 1;
    token.holder = undefined;
    this.#unbucket(token);
    const { claims } = token;
    erase(this.#byTokenId, claims.tokenId, token);
    for (const ancestor of claims.ancestors) erase(this.#byTokenId, ancestor, token);
    if (claims.sessionId !== undefined) erase(this.#bySession, claims.sessionId, token);
    erase(this.#bySubject, claims.subject, token);
    for (const key of originKeysOf(token)) erase(this.#byOrigin, key, token);
    const foreign = foreignRootOf(token);
    if (foreign !== undefined) this.#byClaim.remove(foreign, token);
    const expiring = this.#byExpiry.get(token.expiresAtMs);
    expiring?.delete(token);
    if (expiring?.size === 0) this.#byExpiry.delete(token.expiresAtMs);
  }

  /** The tokens that an entry revokes and that are not flagged yet, found by the index. */
  revokedBy(entry: Entry): VerifiedToken[] {
    const revoked: VerifiedToken[] = [];
    for (const token of this.#candidates(entry)) {
      if (!token.revoked && isRevokedBy(token.claims, entry)) revoked.push(token);
    }
    return revoked;
  }

  /** Removes the tokens that expired at or before `wallMs`, and returns those with live calls. */
  dropExpired(wallMs: number): VerifiedToken[] {
    const live: VerifiedToken[] = [];
    for (const [expiresAtMs, tokens] of this.#byExpiry) {
      if (expiresAtMs > wallMs) continue;
      for (const token of tokens) {
        if (token.firstCall !== undefined) live.push(token);
        this.remove(token);
      }
    }
    return live;
  }

  #candidates(entry: Entry): Iterable<VerifiedToken> {
    if (entry.issuer !== '') return this.#foreignCandidates(entry);
    switch (entry.kind) {
      case EntryKind.ENTRY_KIND_TOKEN:
        return lookUp(this.#byTokenId, uuidOf(entry.key));
      case EntryKind.ENTRY_KIND_SESSION:
        return lookUp(this.#bySession, uuidOf(entry.key));
      case EntryKind.ENTRY_KIND_USER:
        return lookUp(this.#bySubject, textOf(entry.key));
      default:
        // Clients and keys are revoked rarely, with many tokens each. A scan is cheaper than an index of a few huge sets.
        return this.#all;
    }
  }

  /** Tokens of another issuer by their own claims, and tokens derived from them by their origin. */
  #foreignCandidates({ kind, issuer, key, claim }: Entry): Iterable<VerifiedToken> {
    const text = textOf(key);
    if (kind === EntryKind.ENTRY_KIND_CLAIM) return this.#byClaim.find(issuer, claim, text);
    if (!isForeignKind(kind)) return [];
    const index = {
      [EntryKind.ENTRY_KIND_TOKEN]: this.#byTokenId,
      [EntryKind.ENTRY_KIND_SESSION]: this.#bySession,
      [EntryKind.ENTRY_KIND_USER]: this.#bySubject,
    }[kind];
    return new Set([...lookUp(index, text), ...lookUp(this.#byOrigin, foreignKey(kind, issuer, text))]);
  }

  #bucket(token: VerifiedToken): void {
    const at = hashOf(token.text) & (this.#buckets.length - 1);
    token.nextInBucket = this.#buckets[at];
    this.#buckets[at] = token;
  }

  #unbucket(token: VerifiedToken): void {
    const at = hashOf(token.text) & (this.#buckets.length - 1);
    if (this.#buckets[at] === token) {
      this.#buckets[at] = token.nextInBucket;
      return;
    }
    for (let other = this.#buckets[at]; other !== undefined; other = other.nextInBucket) {
      if (other.nextInBucket === token) other.nextInBucket = token.nextInBucket;
    }
  }

  #growBuckets(): void {
    this.#buckets = emptyBuckets(this.#buckets.length * BUCKETS_GROWTH);
    for (const token of this.#all) this.#bucket(token);
  }

  /**
   * Evicts by second chance: the oldest token without live calls that was not used since it was last examined. When all
   * examined tokens were used, the first of them without live calls is evicted.
   */
  #evictOne(): void {
    let steps = 0;
    let fallback: VerifiedToken | undefined;
    for (const token of this.#all) {
      if (token.firstCall === undefined) {
        if (!token.used) {
          this.remove(token);
          return;
        }
        fallback ??= token;
      }
      token.used = false;
      // Moved to the end, so that the next eviction examines others.
      this.#all.delete(token);
      this.#all.add(token);
      steps += 1;
      if (steps === EVICTION_STEPS_MAX) break;
    }
    if (fallback !== undefined) this.remove(fallback);
  }
}

function originKeysOf({ claims }: VerifiedToken): readonly string[] {
  return claims.origin === undefined ? [] : foreignKeysOf(claims.origin);
}

/** The token of another issuer: the token itself, or the one that it was derived from. */
function foreignRootOf({ claims }: VerifiedToken): TokenOrigin | undefined {
  return claims.isForeign ? claims : claims.origin;
}

/**
 * Copies a text into V8's heap. The original is a slice of a header that Node keeps outside the heap: it would keep the
 * whole header alive, and every comparison would follow three pointers.
 */
function compactCopy(text: string): string {
  // A verified token is ASCII.
  return Buffer.from(text, 'latin1').toString('latin1');
}

function emptyBuckets(count: number): (VerifiedToken | undefined)[] {
  return new Array<VerifiedToken | undefined>(count).fill(undefined);
}

/** 24 bits from characters of the signature, which are uniformly distributed. */
function hashOf(text: string): number {
  const end = text.length;
  return (
    (text.charCodeAt(end - 3) & 63) |
    ((text.charCodeAt(end - 5) & 63) << 6) |
    ((text.charCodeAt(end - 9) & 63) << 12) |
    ((text.charCodeAt(end - 14) & 63) << 18)
  );
}

function insert(index: Index, key: string, token: VerifiedToken): void {
  const found = index.get(key);
  if (found === undefined) index.set(key, token);
  else if (found instanceof Set) found.add(token);
  else index.set(key, new Set([found, token]));
}

function erase(index: Index, key: string, token: VerifiedToken): void {
  const found = index.get(key);
  if (found === token) index.delete(key);
  else if (found instanceof Set) {
    found.delete(token);
    if (found.size === 0) index.delete(key);
  }
}

function lookUp(index: Index, key: string): Iterable<VerifiedToken> {
  const found = index.get(key);
  if (found === undefined) return [];
  return found instanceof Set ? [...found] : [found];
}
