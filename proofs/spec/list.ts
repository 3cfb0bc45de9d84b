/** The list of the reference instance: which entries it has, which of them it cannot read, and which tokens they revoke. */

import type { EntryStep, PartStep, TokenStep } from './steps.js';

/** The issuer of our own tokens, for tokens that name no other. */
const OWN = '';

/** An entry that cannot be read, or does not fit. */
export class UnusableEntry extends Error {}

/** Several entries for one user or client are kept as one. */
interface Listed {
  readonly kind: string;
  readonly issuer: string;
  readonly key: string;
  readonly claim: string;
  minGeneration: number;
  cutOffSeconds: number;
  keepUntilMs: number;
}

/** A row of the table of entries that cannot be read. */
interface Fault {
  readonly id: string;
  readonly when: (entry: EntryStep) => boolean;
}

const IDS: readonly string[] = ['TOKEN', 'SESSION'];
const OWN_KINDS: readonly string[] = ['TOKEN', 'SESSION', 'USER', 'CLIENT', 'KEY'];
const FOREIGN_KINDS: readonly string[] = ['TOKEN', 'SESSION', 'USER', 'CLAIM'];
const CUT_OFF_KINDS: readonly string[] = ['USER', 'CLAIM'];
/** Hexadecimal digits of an id. */
const ID_DIGITS = 32;

export const ENTRY_FAULTS: readonly Fault[] = [
  { id: 'F1', when: ({ keep_until_ms }) => keep_until_ms === null },
  { id: 'F2', when: ({ kind, issuer }) => issuer === '' && !OWN_KINDS.includes(kind) },
  { id: 'F3', when: ({ kind, issuer }) => issuer !== '' && !FOREIGN_KINDS.includes(kind) },
  {
    id: 'F4',
    when: ({ kind, issuer, key }) => issuer === '' && IDS.includes(kind) && key.length !== ID_DIGITS,
  },
  {
    id: 'F5',
    when: ({ kind, issuer, cut_off_ms }) =>
      issuer !== '' && CUT_OFF_KINDS.includes(kind) && cut_off_ms === undefined,
  },
  { id: 'F10', when: ({ kind, issuer, claim = '' }) => issuer !== '' && kind === 'CLAIM' && claim === '' },
];

/** The faults of packed identifiers. */
export const PACKED_FAULTS: readonly {
  readonly id: string;
  readonly when: (packed: NonNullable<PartStep['packed']>) => boolean;
}[] = [
  { id: 'F6', when: ({ kind }) => !IDS.includes(kind) },
  { id: 'F7', when: ({ ids }) => ids.length === 0 || ids.length % ID_DIGITS !== 0 },
  { id: 'F8', when: ({ keep_until_ms }) => keep_until_ms === null },
];

/** The row of a list that is full. */
export const FULL = 'F9';

/** What an entry of another issuer is compared with. */
interface Root {
  readonly iss: string;
  readonly jti: string;
  readonly sub: string;
  readonly sid?: string | undefined;
  readonly iat: number;
  readonly claims?: TokenStep['claims'];
}

/** The rows of the table of entries and tokens. */
export const TOKEN_ROWS: readonly {
  readonly id: string;
  readonly when: (entry: Listed, token: TokenStep) => boolean;
}[] = [
  { id: 'T1', when: (entry, token) => isOwn(entry, 'TOKEN', token) && entry.key === hexOfUuid(token.jti) },
  {
    id: 'T2',
    when: (entry, token) =>
      isOwn(entry, 'TOKEN', token) && token.ancestors?.some((id) => entry.key === hexOfUuid(id)) === true,
  },
  {
    id: 'T3',
    when: (entry, token) =>
      isOwn(entry, 'SESSION', token) && token.sid !== undefined && entry.key === hexOfUuid(token.sid),
  },
  {
    id: 'T4',
    when: (entry, token) =>
      isOwn(entry, 'USER', token) &&
      token.gen !== undefined &&
      entry.key === hexOf(token.sub ?? '') &&
      token.gen < entry.minGeneration,
  },
  {
    id: 'T5',
    when: (entry, token) =>
      isOwn(entry, 'CLIENT', token) &&
      token.clients?.some(([id, gen]) => entry.key === hexOf(id) && gen < entry.minGeneration) === true,
  },
  { id: 'T6', when: (entry, token) => isOwn(entry, 'KEY', token) && entry.key === hexOf(token.kid ?? '') },
  {
    id: 'T7',
    when: (entry, token) => isForeign(entry, 'TOKEN', token, ({ jti }) => entry.key === hexOf(jti)),
  },
  {
    id: 'T8',
    when: (entry, token) =>
      isForeign(entry, 'SESSION', token, ({ sid }) => sid !== undefined && entry.key === hexOf(sid)),
  },
  {
    id: 'T9',
    when: (entry, token) =>
      isForeign(
        entry,
        'USER',
        token,
        ({ sub, iat }) => entry.key === hexOf(sub) && iat <= entry.cutOffSeconds,
      ),
  },
  {
    id: 'T10',
    when: (entry, token) =>
      isForeign(
        entry,
        'CLAIM',
        token,
        ({ claims, iat }) =>
          iat <= entry.cutOffSeconds &&
          claims?.[entry.claim]?.some((value) => entry.key === hexOf(value)) === true,
      ),
  },
  {
    id: 'T11',
    when: (entry, token) =>
      isForeign(
        entry,
        'CLAIM',
        token,
        ({ claims, iat }) => iat <= entry.cutOffSeconds && claims?.[entry.claim] === undefined,
      ),
  },
];

/** The list of an epoch. */
export class ReferenceList {
  readonly #without: ReadonlySet<string>;
  readonly #max: number;
  readonly #entries = new Map<string, Listed>();

  constructor(without: ReadonlySet<string>, max: number) {
    this.#without = without;
    this.#max = max;
  }

  get size(): number {
    return this.#entries.size;
  }

  /** @throws UnusableEntry */
  add(entry: EntryStep): void {
    this.#demandRoom(1);
    for (const { id, when } of ENTRY_FAULTS) {
      if (!this.#without.has(id) && when(entry)) throw new UnusableEntry(id);
    }
    this.#put({
      kind: entry.kind,
      issuer: entry.issuer,
      key: entry.key,
      claim: entry.claim ?? '',
      minGeneration: entry.min_generation,
      cutOffSeconds: Math.ceil((entry.cut_off_ms ?? 0) / 1000),
      keepUntilMs: entry.keep_until_ms ?? 0,
    });
  }

  /** @throws UnusableEntry */
  addPacked(packed: NonNullable<PartStep['packed']>): void {
    for (const { id, when } of PACKED_FAULTS) {
      if (!this.#without.has(id) && when(packed)) throw new UnusableEntry(id);
    }
    const { kind, keep_until_ms, ids } = packed;
    this.#demandRoom(Math.ceil(ids.length / ID_DIGITS));
    for (let at = 0; at < ids.length; at += ID_DIGITS) {
      const key = ids.slice(at, at + ID_DIGITS);
      this.#put({
        kind,
        issuer: OWN,
        key,
        claim: '',
        minGeneration: 0,
        cutOffSeconds: 0,
        keepUntilMs: keep_until_ms ?? 0,
      });
    }
  }

  /** Adds all entries of another list. @throws UnusableEntry when there are then too many; all of them are in it */
  merge(other: ReferenceList): void {
    for (const entry of other.#entries.values()) this.#put(entry);
    if (this.size > this.#max && !this.#without.has(FULL)) throw new UnusableEntry(FULL);
  }

  dropUntil(horizonMs: number): void {
    for (const [name, { keepUntilMs }] of this.#entries) {
      if (keepUntilMs <= horizonMs) this.#entries.delete(name);
    }
  }

  revokes(token: TokenStep): boolean {
    for (const entry of this.#entries.values()) {
      for (const { id, when } of TOKEN_ROWS) {
        if (!this.#without.has(id) && when(entry, token)) return true;
      }
    }
    return false;
  }

  /** An entry may be counted although the list has it already. */
  #demandRoom(more: number): void {
    if (this.size + more > this.#max && !this.#without.has(FULL)) throw new UnusableEntry(FULL);
  }

  #put(entry: Listed): void {
    const name = `${entry.kind} ${entry.issuer} ${entry.key} ${entry.claim}`;
    const known = this.#entries.get(name);
    if (known === undefined) {
      this.#entries.set(name, { ...entry });
      return;
    }
    known.minGeneration = Math.max(known.minGeneration, entry.minGeneration);
    known.cutOffSeconds = Math.max(known.cutOffSeconds, entry.cutOffSeconds);
    known.keepUntilMs = Math.max(known.keepUntilMs, entry.keepUntilMs);
  }
}

/** Whether this is an entry without an issuer, of this kind. Such an entry revokes only our own tokens. */
function isOwn(entry: Listed, kind: string, token: TokenStep): boolean {
  return entry.issuer === OWN && entry.kind === kind && token.iss === undefined;
}

function isForeign(entry: Listed, kind: string, token: TokenStep, matches: (root: Root) => boolean): boolean {
  if (entry.kind !== kind || entry.issuer === OWN) return false;
  return rootsOf(token).some((root) => root.iss === entry.issuer && matches(root));
}

/** The token itself if it is of another issuer, and the one that it was derived from. */
function rootsOf({ iss, jti, sub = '', sid, iat = 0, claims, origin }: TokenStep): readonly Root[] {
  const roots: Root[] = [];
  if (iss !== undefined) roots.push({ iss, jti, sub, sid, iat, claims });
  if (origin !== undefined) roots.push(origin);
  return roots;
}

function hexOfUuid(uuid: string): string {
  return uuid.replaceAll('-', '');
}

function hexOf(text: string): string {
  return Buffer.from(text, 'utf8').toString('hex');
}
