/**
 * The tokens that the instance has verified before, with the real enforcement: the feed flags those that it revokes, and a
 * call with a cached token is not looked up in the list again.
 */

import { VerifiedToken } from '@portcullis/guard/internal';
import { type Entries, kidOf } from './entries.js';
import { LATER_MS, type Present } from './identifiers.js';
import type { ExposedEnforcement, ExposedFeed, Protocol } from './protocol.js';
import { indexesIn, type State } from './state.js';
import type { World } from './world.js';

/** A token that can be cached: of an entry that revokes it sooner or later, or of an epoch. */
export type CachedKind = 'ENTRY' | 'EPOCH';

type Listener = ConstructorParameters<Protocol['Feed']>[0]['listener'];

/** The keys of the other issuer, none of which is ever revoked. */
export const TRUSTED = { size: 1, find: () => ({ has: () => true }) };

/** The cache of one world. */
export class CacheModel {
  readonly #entries: Entries;
  readonly #enforcement: ExposedEnforcement;
  readonly #slots: readonly { readonly kind: CachedKind; readonly index: number }[];
  /** What the feed notifies. */
  readonly listener: Listener;
  #present: Present = { databaseMs: 0, monotonicMs: 0, wallMs: 0 };

  constructor(protocol: Protocol, world: World, entries: Entries, feed: ExposedFeed) {
    this.#entries = entries;
    this.#slots = [
      ...world.entries.map((_, index) => ({ kind: 'ENTRY' as const, index })),
      ...Array.from({ length: 1 + (world.epochs ?? 0) }, (_, index) => ({ kind: 'EPOCH' as const, index })),
    ];
    let listener: Listener | undefined;
    this.#enforcement = new protocol.Enforcement({
      issuer: '',
      audience: '',
      clock: {
        monotonicMs: () => this.#present.monotonicMs + LATER_MS,
        wallMs: () => this.#present.wallMs + LATER_MS,
      },
      timers: { after: () => () => {}, soon: () => {} },
      createFeed: (created: Listener) => {
        listener = created;
        return feed;
      },
      trusted: TRUSTED,
      onTokenInvalid: () => {},
      onCutFailed: () => {},
    });
    if (listener === undefined) throw new TypeError('the enforcement has created no feed');
    this.listener = listener;
  }

  /** The tokens that could be verified now, by their numbers. */
  verifiable(state: State): number[] {
    const numbers: number[] = [];
    for (const [number, { kind, index }] of this.#slots.entries()) {
      if ((state.cached & (1 << number)) !== 0 || state.installed === 0) continue;
      if (kind === 'EPOCH' && index >= state.epochs.length) continue;
      const { claims } = this.#tokenOf(state, number);
      if (claims.isForeign || claims.keyId === installedKid(state)) numbers.push(number);
    }
    return numbers;
  }

  /** The verification of a token ends. */
  verify(state: State, number: number): void {
    const { text, claims } = this.#tokenOf(state, number);
    this.#enforcement.admissions._cache(text, claims);
  }

  /** Installs the key set of a response. */
  replaceKeys(state: State): void {
    this.#enforcement.replaceKeys(keysOf(state));
  }

  /** Makes the cache of a state. */
  load(state: State, feed: ExposedFeed, present: Present): void {
    const { admissions } = this.#enforcement;
    this.#present = present;
    this.#enforcement.feed = feed;
    admissions._feed = feed;
    admissions.replaceKeys(keysOf(state));
    for (const token of [...admissions.tokens.all()]) admissions.tokens.remove(token);
    for (const number of indexesIn(state.cached)) {
      const { text, claims } = this.#tokenOf(state, number);
      const token = new VerifiedToken(text, claims);
      token.revoked = (state.flagged & (1 << number)) !== 0;
      admissions.tokens.add(token);
    }
  }

  /** Writes the cache into the state. */
  save(state: State): void {
    state.cached = 0;
    state.flagged = 0;
    for (const number of this.#slots.keys()) {
      if (!this.#exists(state, number)) continue;
      const token = this.#enforcement.admissions.tokens.find(this.#tokenOf(state, number).text);
      if (token === undefined) continue;
      state.cached |= 1 << number;
      if (token.revoked) state.flagged |= 1 << number;
    }
  }

  /** Whether a call with a cached token is admitted. The state must be loaded. */
  admits(state: State, kind: CachedKind, index: number): boolean {
    const number = this.#numberOf(kind, index);
    if ((state.cached & (1 << number)) === 0) return false;
    const { admissions } = this.#enforcement;
    const token = admissions.tokens.find(this.#tokenOf(state, number).text);
    return token !== undefined && admissions.denialReason(token, false) === undefined;
  }

  isFlagged(state: State, kind: CachedKind, index: number): boolean {
    return (state.flagged & (1 << this.#numberOf(kind, index))) !== 0;
  }

  name(number: number): string {
    const slot = this.#slots[number];
    return slot?.kind === 'EPOCH' ? `of epoch ${slot.index}` : `that e${(slot?.index ?? 0) + 1} revokes`;
  }

  #numberOf(kind: CachedKind, index: number): number {
    return this.#slots.findIndex((slot) => slot.kind === kind && slot.index === index);
  }

  #exists(state: State, number: number): boolean {
    const slot = this.#slots[number];
    return slot?.kind === 'ENTRY' || (slot?.index ?? 0) < state.epochs.length;
  }

  #tokenOf(state: State, number: number): VerifiedToken {
    const slot = this.#slots[number];
    if (slot === undefined) throw new RangeError(`there is no token ${number}`);
    return slot.kind === 'EPOCH'
      ? this.#entries.plainToken(state, slot.index)
      : this.#entries.futureToken(slot.index);
  }
}

function installedKid(state: State): string {
  return kidOf(state.keys[state.installed - 1]?.signer ?? 0);
}

function keysOf(state: State): {
  has(keyId: string): boolean;
  keyIds(): Iterable<string>;
  verify(): Promise<boolean>;
} {
  const kid = installedKid(state);
  return {
    has: (keyId) => state.installed > 0 && keyId === kid,
    keyIds: () => [kid],
    verify: () => Promise.resolve(true),
  };
}
