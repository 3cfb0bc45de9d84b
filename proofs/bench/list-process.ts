/** A process that measures one revocation list, or an alternative to it. */

import { randomBytes } from 'node:crypto';
import { getHeapSpaceStatistics } from 'node:v8';
import type { TokenClaims } from '@portcullis/guard';
import { RevocationList, uuidOf } from '@portcullis/guard/internal';
import { EntryKind } from '../../proto/gen/portcullis/revocation/v1/revocation.js';
import { quantile } from '../shared/statistics.js';
import { executeCommands } from './worker.js';

const ID_BYTES = 16;
const MINUTE_MS = 60_000;
/** Entries expire within an hour, the longest lifetime of a token. */
const MINUTES = 60;
/** How many minutes of entries are dropped at once. */
const PURGED_MINUTES = 5;
const COLLECTIONS = 3;
const LOOKUPS = 200_000;
const LOOKUPS_PER_TIMING = 1000;
const WARM_UP_SECONDS = 100;

export type Holder = 'list' | 'set' | 'map' | 'nothing';

export interface HolderFigures {
  readonly bytesPerEntry: number;
  /** Of an id that is not in the list, the usual case. */
  readonly lookupNs: number;
  readonly insertNs: number;
  readonly longestPauseMs: number;
  readonly purgeMs: number;
}

interface Held {
  add(id: Buffer, minute: number): void;
  /** Looks each token up. */
  countRevoked(tokens: readonly TokenClaims[]): number;
  /** Drops the entries that expire by the end of a minute. */
  purge(minute: number): void;
}

/** A list under a steady rate of revocations, in virtual time. */
export interface Turnover {
  readonly perSecond: number;
  /** How long the log keeps an entry, in seconds. */
  readonly keptSeconds: number;
  /** How often auth drops what has expired, in seconds. */
  readonly purgeSeconds: number;
  readonly seconds: number;
}

export interface TurnoverFigures {
  readonly entriesMax: number;
  /** Largest memory of the list's own arrays, in bytes. */
  readonly listBytesMax: number;
  /**
   * Largest resident memory of the process above that before the first entry, in bytes; without V8's young generation, which
   * grows to its full size in every service.
   */
  readonly residentBytesMax: number;
  readonly longestPauseMs: number;
}

const commands = {
  turnover: ({ perSecond, keptSeconds, purgeSeconds, seconds }: Turnover): TurnoverFigures => {
    const list = new RevocationList();
    warmUp(perSecond);
    memory();
    const before = residentBytes();
    const most = { entriesMax: 0, listBytesMax: 0, residentBytesMax: 0, longestPauseMs: 0 };
    for (let second = 0; second < seconds; second += 1) {
      const ids = randomBytes(perSecond * ID_BYTES);
      let lastMs = performance.now();
      for (let at = 0; at < ids.byteLength; at += ID_BYTES) {
        const keepUntilMs = (second + keptSeconds) * 1000 + Math.floor((at / ids.byteLength) * 1000);
        list.addIds(EntryKind.ENTRY_KIND_SESSION, ids.subarray(at, at + ID_BYTES), keepUntilMs);
        const nowMs = performance.now();
        most.longestPauseMs = Math.max(most.longestPauseMs, nowMs - lastMs);
        lastMs = nowMs;
      }
      most.entriesMax = Math.max(most.entriesMax, list.size);
      most.listBytesMax = Math.max(most.listBytesMax, list.bytes);
      // Not after a collection: what the process holds is what a machine must have.
      most.residentBytesMax = Math.max(most.residentBytesMax, residentBytes() - before);
      if (second % purgeSeconds === 0) list.dropUntil(second * 1000);
    }
    return most;
  },
  measure: ({ holder, entries }: { holder: Holder; entries: number }): HolderFigures => {
    const before = memory();
    const held = HOLDERS[holder]();
    const { longestPauseMs, insertNs } = fill(held, entries);
    const bytesPerEntry = (memory() - before) / entries;
    const tokens = Array.from({ length: LOOKUPS }, () => claimsOf(uuidOf(randomBytes(ID_BYTES))));
    const timings: number[] = [];
    for (let start = 0; start < LOOKUPS; start += LOOKUPS_PER_TIMING) {
      const some = tokens.slice(start, start + LOOKUPS_PER_TIMING);
      const startedMs = performance.now();
      if (held.countRevoked(some) > 0) throw new Error('an id was found that was never added');
      timings.push(((performance.now() - startedMs) * 1e6) / LOOKUPS_PER_TIMING);
    }
    const purges: number[] = [];
    for (let minute = PURGED_MINUTES; minute <= MINUTES; minute += PURGED_MINUTES) {
      const purgedMs = performance.now();
      held.purge(minute);
      purges.push(performance.now() - purgedMs);
    }
    return {
      bytesPerEntry,
      insertNs,
      longestPauseMs,
      lookupNs: quantile(timings, 0.5),
      purgeMs: quantile(purges, 0.5),
    };
  },
};

function residentBytes(): number {
  const young = getHeapSpaceStatistics().find(({ space_name }) => space_name === 'new_space');
  return process.memoryUsage.rss() - (young?.physical_space_size ?? 0);
}

/** Makes identifiers as the measurement does, so that the heap has grown to what that takes. */
function warmUp(perSecond: number): void {
  let made = 0;
  for (let second = 0; second < WARM_UP_SECONDS; second += 1) {
    const ids = randomBytes(perSecond * ID_BYTES);
    for (let at = 0; at < ids.byteLength; at += ID_BYTES) made += ids.subarray(at, at + ID_BYTES).byteLength;
  }
  if (made === 0) throw new RangeError('expected a rate above 0');
}

export type ListCommands = typeof commands;

/** Adds entries in the order of their expiry, one by one, so that the longest pause shows. */
function fill(held: Held, entries: number): { longestPauseMs: number; insertNs: number } {
  const perMinute = Math.ceil(entries / MINUTES);
  let longestMs = 0;
  let spentMs = 0;
  for (let start = 0; start < entries; start += perMinute) {
    const minute = Math.floor(start / perMinute) + 1;
    const ids = randomBytes(Math.min(perMinute, entries - start) * ID_BYTES);
    let lastMs = performance.now();
    for (let at = 0; at < ids.byteLength; at += ID_BYTES) {
      held.add(ids.subarray(at, at + ID_BYTES), minute);
      const nowMs = performance.now();
      const tookMs = nowMs - lastMs;
      lastMs = nowMs;
      spentMs += tookMs;
      if (tookMs > longestMs) longestMs = tookMs;
    }
  }
  return { longestPauseMs: longestMs, insertNs: (spentMs * 1e6) / entries };
}

const HOLDERS: Readonly<Record<Holder, () => Held>> = {
  list: () => {
    const list = new RevocationList(Number.MAX_SAFE_INTEGER);
    return {
      add: (id, minute) => list.addIds(EntryKind.ENTRY_KIND_TOKEN, id, minute * MINUTE_MS),
      countRevoked: (tokens) => tokens.reduce((count, claims) => count + (list.revokes(claims) ? 1 : 0), 0),
      purge: (minute) => list.dropUntil(minute * MINUTE_MS),
    };
  },
  set: () => {
    // Without expiry times, so nothing can be dropped: the least that a Set costs.
    const set = new Set<string>();
    return {
      add: (id) => set.add(uuidOf(id)),
      countRevoked: (tokens) => tokens.reduce((count, { tokenId }) => count + (set.has(tokenId) ? 1 : 0), 0),
      purge: () => {},
    };
  },
  map: () => {
    const map = new Map<string, number>();
    return {
      add: (id, minute) => map.set(uuidOf(id), minute),
      countRevoked: (tokens) => tokens.reduce((count, { tokenId }) => count + (map.has(tokenId) ? 1 : 0), 0),
      purge: (until) => {
        for (const [id, minute] of map) if (minute <= until) map.delete(id);
      },
    };
  },
  // The cost of the measurement itself, and pauses that the machine causes.
  nothing: () => ({ add: () => {}, countRevoked: () => 0, purge: () => {} }),
};

function memory(): number {
  // Memory outside of the heap is freed by the collection after the one that finds its owner dead.
  for (let time = 0; time < COLLECTIONS; time += 1) globalThis.gc?.();
  const { heapUsed, arrayBuffers } = process.memoryUsage();
  return heapUsed + arrayBuffers;
}

/** Claims of a user's token with this id, whose session is not revoked. */
function claimsOf(tokenId: string): TokenClaims {
  return {
    issuer: 'https://issuer.bench.invalid',
    subject: 'bench',
    clientId: 'direct',
    tokenId,
    sessionId: undefined,
    kind: 'USER',
    scopes: new Set(),
    roles: new Set(),
    audiences: [],
    actors: [],
    authTimeSeconds: 0,
    expiresAtSeconds: 0,
    generation: 1n,
    clients: [['direct', 1n]],
    ancestors: [],
    origin: undefined,
    issuedAtSeconds: 0,
    keyId: 'key',
    certificateThumbprint: undefined,
    isForeign: false,
    id: 'bench',
  };
}

executeCommands(commands);
