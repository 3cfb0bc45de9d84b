/** The revocation list of one process: the entries of the log that can still match a valid token. */

import { type Entry, EntryKind } from '../../gen/portcullis/revocation/v1/revocation.js';
import { ID_BYTES } from '../limits.js';
import type { TokenClaims, TokenOrigin } from '../token/claims.js';
import { ClaimCutOffs, type CutOff, isRevokedByClaim } from './claim-cut-offs.js';
import { IdTable } from './id-table.js';
import { VersionError } from './version-error.js';

/** Default maximum number of entries: some 500 MB of identifiers. */
const LIST_ENTRIES_MAX = 20_000_000;

/** The list is full. No entry was evicted; the owner of the list must not treat it as current any longer. */
export class ListFullError extends Error {
  constructor(max: number) {
    super(`the revocation list is full: it holds ${max} entries`);
    this.name = 'ListFullError';
  }
}

/**
 * Entries whose `keep_until` is within the same span are in one table, and are dropped together at its end; in
 * milliseconds. A short span keeps few entries beyond their time.
 */
export const TABLE_SPAN_MS = 30_000;

/**
 * The number of tables of one kind from which on a new table has {@link LONG_SPANS} spans. Every new token is looked up in
 * every table, and sixty of them would take a tenth of the time of verifying it. With the default lifetime of tokens there
 * are fewer.
 */
export const SHORT_TABLES_MAX = 16;

/** The number of spans of a table when there are many tables. */
export const LONG_SPANS = 10;

/** How many new identifiers there are for each leaf that is compacted, so that adding never takes long. */
const COMPACT_EVERY = 256;

/** A revocation by generation: every token below the minimum is revoked. */
interface GenerationFloor {
  minGeneration: bigint;
  keepUntilMs: number;
}

/** The kinds of entries that this list can hold. It fails at any other. */
export const KINDS = [
  EntryKind.ENTRY_KIND_TOKEN,
  EntryKind.ENTRY_KIND_SESSION,
  EntryKind.ENTRY_KIND_USER,
  EntryKind.ENTRY_KIND_CLIENT,
  EntryKind.ENTRY_KIND_KEY,
  EntryKind.ENTRY_KIND_CLAIM,
] as const;

/** The kinds of entries that name another issuer's tokens by one identifier. */
export type ForeignKind =
  | typeof EntryKind.ENTRY_KIND_TOKEN
  | typeof EntryKind.ENTRY_KIND_SESSION
  | typeof EntryKind.ENTRY_KIND_USER;

/**
 * The revocation list. Entries may be added in any order and repeatedly. Only {@link RevocationList.dropUntil} removes
 * entries; nothing is evicted to make room.
 */
export class RevocationList {
  // By the number of the last span that they cover, so that dropping a table is one deletion; negative when they cover
  // LONG_SPANS.
  readonly #tokens = new Map<number, IdTable>();
  readonly #sessions = new Map<number, IdTable>();
  readonly #users = new Map<string, GenerationFloor>();
  readonly #clients = new Map<string, GenerationFloor>();
  readonly #keys = new Map<string, number>();
  // Another issuer's identifiers are texts of any form. The keys contain the issuer.
  readonly #foreignIds = new Map<string, number>();
  readonly #foreignUsers = new Map<string, CutOff>();
  readonly #foreignClaims = new ClaimCutOffs();
  /** Number of identifiers in the tables. */
  #packed = 0;
  /** Maximum number of entries. */
  readonly max: number;

  constructor(max: number = LIST_ENTRIES_MAX) {
    this.max = max;
  }

  /** Memory of the identifiers, in bytes. Entries of other kinds are few and not counted. */
  get bytes(): number {
    let bytes = 0;
    for (const tables of [this.#tokens, this.#sessions]) {
      for (const table of tables.values()) bytes += table.bytes;
    }
    return bytes;
  }

  /** Number of entries. */
  get size(): number {
    const ids = this.#packed + this.#foreignIds.size + this.#foreignClaims.size;
    return ids + this.#users.size + this.#clients.size + this.#keys.size + this.#foreignUsers.size;
  }

  /**
   * Adds an entry of the log. An unknown kind is an error, never ignored.
   *
   * @throws ListFullError when the list is full, RangeError when the entry is malformed or of unknown kind
   */
  add(entry: Entry): void {
    this.#requireRoom();
    const keepUntilMs = entry.keepUntil?.getTime() ?? Number.NaN;
    if (!Number.isFinite(keepUntilMs)) throw new RangeError('expected a revocation entry with keep_until');
    if (entry.issuer !== '') {
      this.#addForeign(entry, keepUntilMs);
      return;
    }
    switch (entry.kind) {
      case EntryKind.ENTRY_KIND_TOKEN:
      case EntryKind.ENTRY_KIND_SESSION:
        if (entry.key.byteLength !== ID_BYTES) {
          throw new RangeError(
            `expected a revocation entry with a key of ${ID_BYTES} bytes, got ${entry.key.byteLength}`,
          );
        }
        this.addIds(entry.kind, entry.key, keepUntilMs);
        return;
      case EntryKind.ENTRY_KIND_USER:
        raise(this.#users, textOf(entry.key), entry.minGeneration, keepUntilMs);
        return;
      case EntryKind.ENTRY_KIND_CLIENT:
        raise(this.#clients, textOf(entry.key), entry.minGeneration, keepUntilMs);
        return;
      case EntryKind.ENTRY_KIND_KEY:
        keepLonger(this.#keys, textOf(entry.key), keepUntilMs);
        return;
      default:
        throw new VersionError(`a revocation entry is of unknown kind ${entry.kind}`);
    }
  }

  /**
   * Adds many identifiers of one kind.
   *
   * @param ids - {@link ID_BYTES} bytes each, without separators
   * @throws ListFullError when the list is full, RangeError when the input is malformed or of another kind
   */
  addIds(kind: EntryKind, ids: Uint8Array, keepUntilMs: number): void {
    if (ids.byteLength === 0 || ids.byteLength % ID_BYTES !== 0) {
      throw new RangeError(`expected identifiers of ${ID_BYTES} bytes each, got ${ids.byteLength} bytes`);
    }
    this.#requireRoom(ids.byteLength / ID_BYTES);
    const span = Math.ceil(keepUntilMs / TABLE_SPAN_MS);
    if (!Number.isSafeInteger(span)) throw new RangeError('expected revoked identifiers with keep_until');
    const table = tableFor(this.#tablesOf(kind), span);
    const before = this.#packed;
    for (let at = 0; at < ids.byteLength; at += ID_BYTES) {
      const isNew = table.add(
        wordAt(ids, at),
        wordAt(ids, at + 4),
        wordAt(ids, at + 8),
        wordAt(ids, at + 12),
      );
      if (isNew) this.#packed += 1;
    }
    if (Math.trunc(before / COMPACT_EVERY) < Math.trunc(this.#packed / COMPACT_EVERY)) this.#compact();
  }

  /** Compacts one leaf of a table to which nothing is being added. */
  #compact(): void {
    for (const tables of [this.#tokens, this.#sessions]) {
      for (const table of tables.values()) if (table.compact()) return;
    }
  }

  /**
   * Merges another list into this one; the other must not be used afterwards. Tables of spans that this list does not
   * have are moved, not copied, so a merge into a nearly empty list is fast. An entry that is in a table of one span and in
   * a longer one counts twice until it is dropped.
   *
   * @throws ListFullError when the merged list is too large. All entries are in it nevertheless
   */
  takeOver(other: RevocationList): void {
    for (const [own, others] of [
      [this.#tokens, other.#tokens],
      [this.#sessions, other.#sessions],
    ] as const) {
      for (const [span, table] of others) this.#takeOverTable(own, span, table);
    }
    for (const [own, others] of [
      [this.#users, other.#users],
      [this.#clients, other.#clients],
    ] as const) {
      for (const [key, floor] of others) raise(own, key, floor.minGeneration, floor.keepUntilMs);
    }
    for (const [own, others] of [
      [this.#keys, other.#keys],
      [this.#foreignIds, other.#foreignIds],
    ] as const) {
      for (const [key, keepUntilMs] of others) keepLonger(own, key, keepUntilMs);
    }
    for (const [key, cutOff] of other.#foreignUsers) this.#raiseCutOff(key, cutOff);
    this.#foreignClaims.addAll(other.#foreignClaims);
    // Checked at the end, because the lists may have most entries in common.
    if (this.size > this.max) throw new ListFullError(this.max);
  }

  #takeOverTable(tables: Map<number, IdTable>, span: number, table: IdTable): void {
    const own = tables.get(span);
    // The smaller table is copied into the larger one.
    const [larger, smaller] = own !== undefined && own.size > table.size ? [own, table] : [table, own];
    this.#packed -= own?.size ?? 0;
    smaller?.addTo(larger);
    tables.set(span, larger);
    this.#packed += larger.size;
  }

  /** Counts known entries, too: a nearly full list reports that it is full too early rather than too late. */
  #requireRoom(more = 1): void {
    if (this.size + more > this.max) throw new ListFullError(this.max);
  }

  #tablesOf(kind: EntryKind): Map<number, IdTable> {
    switch (kind) {
      case EntryKind.ENTRY_KIND_TOKEN:
        return this.#tokens;
      case EntryKind.ENTRY_KIND_SESSION:
        return this.#sessions;
      default:
        throw new RangeError(`expected identifiers of tokens or sessions, got kind ${kind}`);
    }
  }

  /** Whether an entry revokes a token with these claims. */
  revokes(claims: TokenClaims): boolean {
    if (claims.isForeign) return this.#revokesForeign(claims);
    if (hasUuid(this.#tokens, claims.tokenId)) return true;
    for (const ancestor of claims.ancestors) if (hasUuid(this.#tokens, ancestor)) return true;
    if (claims.sessionId !== undefined && hasUuid(this.#sessions, claims.sessionId)) return true;
    if (claims.generation !== undefined && isBelow(this.#users, claims.subject, claims.generation)) {
      return true;
    }
    for (const [clientId, generation] of claims.clients) {
      if (isBelow(this.#clients, clientId, generation)) return true;
    }
    return this.#keys.has(claims.keyId) || this.#revokesForeign(claims);
  }

  /**
   * Drops the entries whose `keep_until` is at or before the horizon.
   *
   * @param horizonMs - from the issuer, in its database's time. Tokens that such entries could revoke count as expired,
   *   whatever the local clock says
   */
  dropUntil(horizonMs: number): void {
    for (const tables of [this.#tokens, this.#sessions]) {
      for (const [span, table] of tables) {
        if (Math.abs(span) * TABLE_SPAN_MS > horizonMs) continue;
        tables.delete(span);
        this.#packed -= table.size;
        table.release();
      }
    }
    for (const floors of [this.#users, this.#clients]) {
      for (const [key, floor] of floors) if (floor.keepUntilMs <= horizonMs) floors.delete(key);
    }
    for (const keys of [this.#keys, this.#foreignIds]) {
      for (const [key, keepUntilMs] of keys) if (keepUntilMs <= horizonMs) keys.delete(key);
    }
    for (const [key, cutOff] of this.#foreignUsers) {
      if (cutOff.keepUntilMs <= horizonMs) this.#foreignUsers.delete(key);
    }
    this.#foreignClaims.dropUntil(horizonMs);
  }

  #addForeign(entry: Entry, keepUntilMs: number): void {
    if (entry.kind === EntryKind.ENTRY_KIND_CLAIM) {
      const cutOff = { seconds: cutOffSecondsOf(entry), keepUntilMs };
      if (entry.claim === '') throw new RangeError('expected a revocation entry with a claim');
      this.#foreignClaims.add(entry.issuer, entry.claim, textOf(entry.key), cutOff);
      return;
    }
    if (!isForeignKind(entry.kind)) {
      throw new RangeError(
        `expected a revocation entry of another issuer for a token, session, user or claim, got kind ${entry.kind}`,
      );
    }
    const key = foreignKey(entry.kind, entry.issuer, textOf(entry.key));
    if (entry.kind !== EntryKind.ENTRY_KIND_USER) {
      keepLonger(this.#foreignIds, key, keepUntilMs);
      return;
    }
    this.#raiseCutOff(key, { seconds: cutOffSecondsOf(entry), keepUntilMs });
  }

  #raiseCutOff(key: string, { seconds, keepUntilMs }: CutOff): void {
    const cutOff = this.#foreignUsers.get(key);
    if (cutOff === undefined) {
      this.#foreignUsers.set(key, { seconds, keepUntilMs });
      return;
    }
    cutOff.seconds = Math.max(cutOff.seconds, seconds);
    cutOff.keepUntilMs = Math.max(cutOff.keepUntilMs, keepUntilMs);
  }

  #revokesForeign(claims: TokenClaims): boolean {
    if (this.#foreignIds.size + this.#foreignUsers.size + this.#foreignClaims.size === 0) return false;
    for (const root of rootsOf(claims)) {
      if (this.#foreignClaims.revokes(root)) return true;
      for (const key of foreignKeysOf(root)) {
        if (this.#foreignIds.has(key)) return true;
        const cutOff = this.#foreignUsers.get(key);
        if (cutOff !== undefined && root.issuedAtSeconds <= cutOff.seconds) return true;
      }
    }
    return false;
  }
}

/** What other issuers' entries are matched against: the token itself, and the token that it was derived from. */
function rootsOf(claims: TokenClaims): readonly TokenOrigin[] {
  return claims.origin === undefined ? [claims] : [claims, claims.origin];
}

/** The keys of the entries that would revoke a token of another issuer. */
export function foreignKeysOf({ issuer, tokenId, sessionId, subject }: TokenOrigin): readonly string[] {
  const keys = [
    foreignKey(EntryKind.ENTRY_KIND_TOKEN, issuer, tokenId),
    foreignKey(EntryKind.ENTRY_KIND_USER, issuer, subject),
  ];
  if (sessionId !== undefined) keys.push(foreignKey(EntryKind.ENTRY_KIND_SESSION, issuer, sessionId));
  return keys;
}

/** One text for a kind, an issuer and an identifier. Different triples have different texts. */
export function foreignKey(kind: ForeignKind, issuer: string, text: string): string {
  return `${kind} ${issuer.length} ${issuer} ${text}`;
}

/** Whether entries of this kind name another issuer's tokens by one identifier. */
export function isForeignKind(kind: EntryKind): kind is ForeignKind {
  return (
    kind === EntryKind.ENTRY_KIND_TOKEN ||
    kind === EntryKind.ENTRY_KIND_SESSION ||
    kind === EntryKind.ENTRY_KIND_USER
  );
}

/** Whether one entry revokes a token with these claims. */
export function isRevokedBy(claims: TokenClaims, entry: Entry): boolean {
  if (entry.issuer !== '') return rootsOf(claims).some((root) => isForeignRevokedBy(root, entry));
  if (claims.isForeign) return false;
  switch (entry.kind) {
    case EntryKind.ENTRY_KIND_TOKEN: {
      const id = uuidOf(entry.key);
      return claims.tokenId === id || claims.ancestors.includes(id);
    }
    case EntryKind.ENTRY_KIND_SESSION:
      return claims.sessionId === uuidOf(entry.key);
    case EntryKind.ENTRY_KIND_USER:
      return (
        claims.generation !== undefined &&
        claims.subject === textOf(entry.key) &&
        claims.generation < entry.minGeneration
      );
    case EntryKind.ENTRY_KIND_CLIENT: {
      const id = textOf(entry.key);
      return claims.clients.some(
        ([clientId, generation]) => clientId === id && generation < entry.minGeneration,
      );
    }
    case EntryKind.ENTRY_KIND_KEY:
      return claims.keyId === textOf(entry.key);
    default:
      return false;
  }
}

function isForeignRevokedBy(root: TokenOrigin, entry: Entry): boolean {
  if (root.issuer !== entry.issuer) return false;
  const text = textOf(entry.key);
  switch (entry.kind) {
    case EntryKind.ENTRY_KIND_CLAIM:
      return isRevokedByClaim(root, entry, { value: text, seconds: cutOffSecondsOf(entry) });
    case EntryKind.ENTRY_KIND_TOKEN:
      return root.tokenId === text;
    case EntryKind.ENTRY_KIND_SESSION:
      return root.sessionId === text;
    case EntryKind.ENTRY_KIND_USER:
      return root.subject === text && root.issuedAtSeconds <= cutOffSecondsOf(entry);
    default:
      return false;
  }
}

function cutOffSecondsOf(entry: Entry): number {
  const seconds = Math.ceil((entry.cutOffTime?.getTime() ?? Number.NaN) / 1000);
  if (!Number.isSafeInteger(seconds)) throw new RangeError('expected a revocation entry with cut_off_time');
  return seconds;
}

/** The canonical text of a UUID given as 16 bytes (RFC 9562 §4). */
export function uuidOf(bytes: Uint8Array): string {
  const hex = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString('hex');
  return `${hex.slice(0, 8)}-${hex.slice(8, 12)}-${hex.slice(12, 16)}-${hex.slice(16, 20)}-${hex.slice(20)}`;
}

/** The text of an entry's key, for the kinds whose keys are texts. */
export function textOf(bytes: Uint8Array): string {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString('utf8');
}

/** Four bytes as a big-endian number. A DataView would be one more object for every identifier. */
function wordAt(bytes: Uint8Array, at: number): number {
  return (
    (((bytes[at] ?? 0) << 24) |
      ((bytes[at + 1] ?? 0) << 16) |
      ((bytes[at + 2] ?? 0) << 8) |
      (bytes[at + 3] ?? 0)) >>>
    0
  );
}

/** The table of a span, which is created if there is none. */
function tableFor(tables: Map<number, IdTable>, span: number): IdTable {
  const longSpan = Math.ceil(span / LONG_SPANS) * LONG_SPANS;
  const known = tables.get(span) ?? tables.get(-longSpan);
  if (known !== undefined) return known;
  // About as many revocations as in the span before.
  const table = new IdTable(tables.get(span - 1)?.size);
  tables.set(tables.size < SHORT_TABLES_MAX ? span : -longSpan, table);
  return table;
}

function hasUuid(tables: ReadonlyMap<number, IdTable>, uuid: string): boolean {
  if (tables.size === 0) return false;
  const a = Number.parseInt(uuid.slice(0, 8), 16);
  const b = Number.parseInt(uuid.slice(9, 13) + uuid.slice(14, 18), 16);
  const c = Number.parseInt(uuid.slice(19, 23) + uuid.slice(24, 28), 16);
  const d = Number.parseInt(uuid.slice(28), 16);
  for (const table of tables.values()) if (table.has(a, b, c, d)) return true;
  return false;
}

function keepLonger(keys: Map<string, number>, key: string, keepUntilMs: number): void {
  keys.set(key, Math.max(keepUntilMs, keys.get(key) ?? 0));
}

function raise(
  floors: Map<string, GenerationFloor>,
  key: string,
  minGeneration: bigint,
  keepUntilMs: number,
): void {
  const floor = floors.get(key);
  if (floor === undefined) {
    floors.set(key, { minGeneration, keepUntilMs });
    return;
  }
  if (minGeneration > floor.minGeneration) floor.minGeneration = minGeneration;
  floor.keepUntilMs = Math.max(floor.keepUntilMs, keepUntilMs);
}

function isBelow(floors: ReadonlyMap<string, GenerationFloor>, key: string, generation: bigint): boolean {
  const floor = floors.get(key);
  return floor !== undefined && generation < floor.minGeneration;
}
