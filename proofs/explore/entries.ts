/** The entries of a state as the protocol has them, and the tokens that they revoke. */

import type { TokenClaims } from '@portcullis/guard';
import { VerifiedToken } from '@portcullis/guard/internal';
import { CLOCK_SKEW_SECONDS } from '@portcullis/guard/limits';
import type { LogEntry } from '../../services/auth/records/revocations.js';
import { entryIdOf, ORIGIN_TICK, type Present, TICK_MS } from './identifiers.js';
import type { ExposedClaims } from './protocol.js';
import type { State } from './state.js';
import { isOfOtherIssuer, type Kind, type World } from './world.js';

/** The end of what never ends. */
const FAR_MS = 1_000_000 * TICK_MS;

const ISSUER = 'https://auth.example';
const OTHER_ISSUER = 'https://other.example';
const USER_KEY = Buffer.from('user');

/** The claim of entries of kind CLAIM; each of them has a value of its own. */
const CLAIM = '/tenant';

/** A cut-off after every token that is revoked. */
const CUT_OFF = new Date(FAR_MS);

/** Translates entries and tokens of one world. */
export class Entries {
  readonly #world: World;
  readonly #foreignKey: (text: string) => string;
  readonly #tokens = new Map<string, VerifiedToken>();
  /** When set, the keep_until of each entry is what it was at the commit, in milliseconds. */
  keptUntilMs: number[] | undefined;

  /** @param foreignKey - the list's key of a token of another issuer */
  constructor(world: World, foreignKey: (issuer: string, text: string) => string) {
    this.#world = world;
    this.#foreignKey = (text) => foreignKey(OTHER_ISSUER, text);
  }

  kindOf(state: State, index: number): Kind {
    // A copy in a later epoch has the kind of its original.
    return this.#kindAfter(state, state.entries[index]?.target ?? index);
  }

  /** The kind of the next entry. */
  nextKind(state: State): Kind {
    return this.#kindAfter(state, state.entries.length);
  }

  #kindAfter({ entries }: State, index: number): Kind {
    let originals = 0;
    for (let before = 0; before < index; before += 1) {
      if (entries[before]?.target === before) originals += 1;
    }
    return this.#world.entries[originals] ?? 'TOKEN';
  }

  keepUntilMs(state: State, index: number, present: Present): number {
    const { keep } = this.#world;
    if (keep === undefined) return FAR_MS;
    const target = state.entries[index]?.target ?? index;
    return (
      this.keptUntilMs?.[target] ?? present.databaseMs + (keep - (state.entries[target]?.age ?? 0)) * TICK_MS
    );
  }

  /** @param number - the index of the entry that was dropped last, plus one; 0 for none */
  horizonMs(state: State, number: number, present: Present): number {
    return number === 0 ? 0 : this.keepUntilMs(state, number - 1, present);
  }

  /** The first entry that is kept until then, plus one. */
  entryOfHorizon(state: State, ms: number, present: Present): number {
    if (ms === 0) return 0;
    for (let index = 0; index < state.entries.length; index += 1) {
      if (this.keepUntilMs(state, index, present) === ms) return index + 1;
    }
    throw new RangeError('a horizon is the keep_until of no entry');
  }

  /** The identifier of the key that an entry revokes; the empty text for other entries. */
  keyTextOf(state: State, index: number): string {
    return this.kindOf(state, index) === 'KEY' ? kidOf(state.entries[index]?.value ?? 0) : '';
  }

  /** The list's key of the token of another issuer that an entry revokes. */
  foreignKeyOf(index: number): string {
    return this.#foreignKey(foreignIdOf(index));
  }

  logEntryOf(state: State, index: number, present: Present): LogEntry {
    const entry = state.entries[index];
    if (entry === undefined) throw new RangeError(`there is no entry ${index}`);
    const kind = this.kindOf(state, index);
    return {
      entryId: entryIdOf(index + 1),
      sequence: BigInt(entry.sequence),
      kind: kind === 'FOREIGN' ? 'TOKEN' : kind,
      issuer: isOfOtherIssuer(kind) ? OTHER_ISSUER : '',
      claim: kind === 'CLAIM' ? CLAIM : undefined,
      key: this.#keyOf(kind, state, index),
      minGeneration: kind === 'USER' ? BigInt(entry.value) : 0n,
      keepUntil: new Date(this.keepUntilMs(state, index, present)),
      cutOffTime: kind === 'CLAIM' ? CUT_OFF : undefined,
      acknowledge: this.#world.receipts !== undefined,
    };
  }

  #keyOf(kind: Kind, state: State, index: number): Buffer {
    const { target, value } = state.entries[index] ?? { target: index, value: 0 };
    switch (kind) {
      case 'TOKEN':
        return entryIdOf(index + 1);
      case 'USER':
        return USER_KEY;
      case 'KEY':
        return Buffer.from(kidOf(value));
      case 'FOREIGN':
      case 'CLAIM':
        return Buffer.from(foreignIdOf(target));
    }
  }

  /** Adds the entry to the values of a list. */
  addClaim(list: ExposedClaims, state: State, index: number, present: Present): void {
    const cutOff = { seconds: FAR_MS / 1000, keepUntilMs: this.keepUntilMs(state, index, present) };
    list.add(OTHER_ISSUER, CLAIM, foreignIdOf(index), cutOff);
  }

  /** Whether a list has the value of the entry. */
  hasClaim(list: ExposedClaims, index: number): boolean {
    return list._issuers.get(OTHER_ISSUER)?.get(CLAIM)?.has(foreignIdOf(index)) === true;
  }

  /** A token that the entry revokes. */
  revokedToken(state: State, index: number, present: Present): VerifiedToken {
    const entry = state.entries[index];
    if (entry === undefined) throw new RangeError(`there is no entry ${index}`);
    const kind = this.kindOf(state, index);
    const expiresAtMs = this.keepUntilMs(state, index, present) - TICK_MS;
    const kid = kidOf(kind === 'TOKEN' || kind === 'KEY' ? entry.value : signerOf(state, entry.epoch));
    switch (kind) {
      case 'TOKEN':
        return this.#token(`t${index}`, kid, expiresAtMs, { tokenId: uuidOf(index) });
      case 'USER':
        return this.#token(`u${entry.value}`, kid, expiresAtMs, {
          subject: 'user',
          generation: BigInt(entry.value - 1),
        });
      case 'KEY':
        return this.#token('k', kid, expiresAtMs, {});
      case 'FOREIGN':
        return this.#token(`f${index}`, 'other', expiresAtMs, {
          issuer: OTHER_ISSUER,
          tokenId: foreignIdOf(entry.target),
          isForeign: true,
        });
      case 'CLAIM':
        return this.#token(`c${index}`, 'other', expiresAtMs, {
          issuer: OTHER_ISSUER,
          tokenId: 'another',
          isForeign: true,
          revocable:
            this.#world.unread === true ? new Map() : new Map([[CLAIM, [foreignIdOf(entry.target)]]]),
        });
    }
  }

  /** The token that the entry will revoke, if it is committed in the first epoch; or the token of another issuer. */
  futureToken(index: number): VerifiedToken {
    if (this.#world.entries[index] === 'FOREIGN') {
      const claims = { issuer: OTHER_ISSUER, tokenId: foreignIdOf(index), isForeign: true };
      return this.#token(`f${index}`, 'other', FAR_MS - TICK_MS, claims);
    }
    return this.#token(`t${index}`, kidOf(0), FAR_MS - TICK_MS, { tokenId: uuidOf(index) });
  }

  /** A token of an epoch that only the end of the epoch, or of its key, revokes. */
  plainToken(state: State, epoch: number): VerifiedToken {
    return this.#token('p', kidOf(signerOf(state, epoch)), FAR_MS, {});
  }

  /** A token of the user that is issued now. */
  freshToken(state: State): VerifiedToken {
    const { generation, keys } = state.database;
    return this.#token(`u${generation}`, kidOf(state.keys[keys]?.signer ?? 0), FAR_MS, {
      subject: 'user',
      generation: BigInt(generation),
    });
  }

  #token(name: string, keyId: string, expiresAtMs: number, claims: Partial<TokenClaims>): VerifiedToken {
    const key = `${name} ${keyId} ${expiresAtMs}`;
    let token = this.#tokens.get(key);
    if (token === undefined) {
      const expiresAtSeconds = expiresAtMs / 1000 - CLOCK_SKEW_SECONDS;
      token = new VerifiedToken(key, { ...CLAIMS, keyId, expiresAtSeconds, ...claims });
      this.#tokens.set(key, token);
    }
    return token;
  }
}

/** The identifier of a key, named by the version of the key set that introduced it. */
export function kidOf(signer: number): string {
  return `key-${signer}`;
}

/** The key that signed when the epoch was opened. */
function signerOf({ keys }: State, epoch: number): number {
  return keys.findIndex((version) => version.epoch === epoch);
}

function foreignIdOf(index: number): string {
  return `other-${index}`;
}

function uuidOf(index: number): string {
  const hex = entryIdOf(index + 1).toString('hex');
  return `${hex.slice(0, 8)}-${hex.slice(8, 12)}-${hex.slice(12, 16)}-${hex.slice(16, 20)}-${hex.slice(20)}`;
}

const CLAIMS: TokenClaims = {
  issuer: ISSUER,
  id: 'someone',
  subject: 'someone',
  clientId: 'direct',
  tokenId: 'ffffffff-ffff-4fff-8fff-ffffffffffff',
  sessionId: undefined,
  kind: 'USER',
  scopes: new Set(),
  roles: new Set(),
  audiences: [],
  actors: [],
  authTimeSeconds: undefined,
  expiresAtSeconds: FAR_MS / 1000,
  generation: undefined,
  clients: [],
  ancestors: [],
  origin: undefined,
  issuedAtSeconds: ORIGIN_TICK,
  keyId: '',
  certificateThumbprint: undefined,
  isForeign: false,
};
