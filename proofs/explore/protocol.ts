/**
 * Loads the protocol's own modules as they are compiled, with two changes of their text: private fields become readable,
 * so that a state can be saved and restored, and one guard may be left out. Production code has no switches for either.
 */

import { readFile } from 'node:fs/promises';
import { dirname, join, resolve } from 'node:path';
import { pathToFileURL } from 'node:url';
import type { Enforcement, Feed, Moment, RevocationList, VerifiedToken } from '@portcullis/guard/internal';
import { PROJECT_FOLDER } from '../../scripts/system/project.js';
import type { LogEntry, LogState } from '../../services/auth/records/revocations.js';
import type * as Watch from '../../services/auth/revocation/enforcement-watch.js';
import type * as FenceWatch from '../../services/auth/revocation/fence-watch.js';
import type * as Records from '../../services/auth/revocation/instance-records.js';
import type * as AuthLog from '../../services/auth/revocation/log.js';
import type { LogTail, TailReading } from '../../services/auth/revocation/log-tail.js';

/** The modules that are loaded with changes, each after those that it imports. */
const MODULES = {
  'id-table': 'interceptors/dist/src/revocation/id-table.js',
  'clock-rises': 'interceptors/dist/src/revocation/clock-rises.js',
  'claim-cut-offs': 'interceptors/dist/src/revocation/claim-cut-offs.js',
  list: 'interceptors/dist/src/revocation/list.js',
  'held-entries': 'interceptors/dist/src/revocation/held-entries.js',
  fence: 'interceptors/dist/src/revocation/fence.js',
  feed: 'interceptors/dist/src/revocation/feed.js',
  admission: 'interceptors/dist/src/server/admission.js',
  enforcement: 'interceptors/dist/src/server/enforcement.js',
  log: 'dist/services/auth/revocation/log.js',
  'id-digests': 'dist/services/auth/revocation/id-digests.js',
  'log-tail': 'dist/services/auth/revocation/log-tail.js',
  'fence-watch': 'dist/services/auth/revocation/fence-watch.js',
  watch: 'dist/services/auth/revocation/enforcement-watch.js',
  records: 'dist/services/auth/revocation/instance-records.js',
} as const;

export type ModuleName = keyof typeof MODULES;

/** Modules that wait for the database. Here it answers at once, so they are loaded without waiting. */
const WAITING: readonly string[] = ['log-tail', 'fence'];

/** A change of a module's compiled text. */
export interface Edit {
  readonly module: ModuleName;
  /** Must occur exactly once. */
  readonly find: string;
  readonly replace: string;
}

/** The feed, with its fields. */
export type ExposedFeed = Feed & {
  _service: string;
  _instance: Uint8Array;
  _listener: object;
  _listEntriesMax: number | undefined;
  _claimIds: readonly Uint8Array[];
  _list: ExposedList;
  _staged: ExposedList | undefined;
  _epoch: Uint8Array;
  _epochNumber: bigint;
  _fenceWanted: bigint;
  _applied: bigint;
  _entryIdAtApplied: Uint8Array;
  _highestSeen: bigint;
  _keySetVersion: Uint8Array;
  _horizonMs: number;
  _lastAppliedMonotonicMs: number;
  _lease: { sentAt: Moment; risesMs: number; lengthMs: number } | undefined;
  _rises: ExposedRises;
  _held: ExposedHeld;
  _hydrated: boolean;
  _unacknowledged: Map<string, Uint8Array>;
};

/** The revocation list, with its fields. */
export type ExposedList = RevocationList & {
  _tokens: Map<number, ExposedTable>;
  _users: Map<string, { minGeneration: bigint; keepUntilMs: number }>;
  _keys: Map<string, number>;
  _foreignIds: Map<string, number>;
  _foreignClaims: ExposedClaims;
  _packed: number;
};

/** The values of claims in the list. */
export interface ExposedClaims {
  readonly _issuers: ReadonlyMap<string, ReadonlyMap<string, ReadonlyMap<string, object>>>;
  add(
    issuer: string,
    claim: string,
    value: string,
    cutOff: { readonly seconds: number; readonly keepUntilMs: number },
  ): void;
}

/** A table of the list. */
interface ExposedTable {
  readonly size: number;
  add(a: number, b: number, c: number, d: number): boolean;
  has(a: number, b: number, c: number, d: number): boolean;
}

/** The sums of the feed's clocks. */
interface ExposedRises {
  _endedMs: number;
  _lowestMs: number;
  _highestMs: number;
  _riseMs: number;
}

/** The entries that the feed notes as held, with their fields. */
export interface ExposedHeld {
  readonly heldTo: bigint;
  readonly digest: Buffer;
  _position: number;
  _heldTo: number;
  readonly _digest: Buffer;
  readonly _sequences: Float64Array;
  readonly _ids: Uint8Array;
}

/** The admission of calls, with its fields. */
export type ExposedAdmissions = Enforcement['admissions'] & {
  _feed: Feed;
  _keys: { has(keyId: string): boolean };
  _cache(text: string, claims: VerifiedToken['claims']): VerifiedToken;
};

/** The enforcement, whose feed can be replaced. */
export type ExposedEnforcement = Omit<Enforcement, 'feed' | 'admissions'> & {
  feed: ExposedFeed;
  readonly admissions: ExposedAdmissions;
};

/** The end of the log in memory of auth, with its fields; it is loaded without waiting. */
export interface ExposedTail {
  _epoch: Buffer;
  _from: bigint;
  _entries: readonly LogEntry[];
  _ids: ExposedDigests;
  read(
    reader: { readonly [M in 'entriesAfter' | 'idsAfter']: (sequence: bigint) => readonly LogEntry[] } & {
      readonly state: LogState;
    },
    wanted: Parameters<LogTail['read']>[1],
  ): TailReading;
}

/** The digests of the log in memory of auth. */
interface ExposedDigests {
  readonly _length: number;
  append(entries: readonly LogEntry[]): void;
}

/** The statements of a fence; they are loaded without waiting. */
interface ExposedFence {
  passesFence(list: { readonly place: LogPlace }, fence: LogPlace): boolean;
  lockFence(query: FenceStatement): LogPlace;
  raiseFence(query: FenceStatement, to: LogPlace): LogPlace;
}

type LogPlace = ExposedFeed['place'];
type FenceStatement = (text: string, values?: readonly unknown[]) => { readonly rows: readonly object[] };

/** The protocol's code. */
export interface Protocol {
  readonly Feed: new (...options: ConstructorParameters<typeof Feed>) => ExposedFeed;
  readonly RevocationList: new (max?: number) => ExposedList;
  readonly ClaimCutOffs: new () => ExposedClaims;
  readonly ClockRises: new () => ExposedRises;
  readonly HeldEntries: new () => ExposedHeld;
  readonly IdDigests: new (after: bigint) => ExposedDigests;
  readonly IdTable: new () => ExposedTable;
  readonly ListFullError: new (max: number) => Error;
  readonly foreignKey: (kind: 1, issuer: string, text: string) => string;
  readonly Enforcement: new (options: object) => ExposedEnforcement;
  readonly Admissions: new (options: object) => ExposedAdmissions;
  readonly fence: ExposedFence;
  readonly fenceWatch: typeof FenceWatch;
  readonly log: typeof AuthLog;
  readonly LogTail: new () => ExposedTail;
  readonly watch: typeof Watch;
  readonly records: typeof Records;
}

/**
 * Loads the protocol.
 *
 * @throws Error when the text of an edit does not occur exactly once: the code has changed
 */
export async function loadProtocol(edits: readonly Edit[] = []): Promise<Protocol> {
  const urls = new Map<string, string>();
  const loaded: Record<string, object> = {};
  for (const [name, path] of Object.entries(MODULES)) {
    const file = join(PROJECT_FOLDER, path);
    const text = applyEdits(
      await readFile(file, 'utf8'),
      edits.filter(({ module }) => module === name),
    );
    const ready = WAITING.includes(name) ? withoutWaiting(text) : text;
    const url = dataUrlOf(linkImports(exposeFields(ready), file, urls));
    urls.set(file, url);
    loaded[name] = (await import(url)) as object;
  }
  return {
    ...loaded['id-table'],
    ...loaded['clock-rises'],
    ...loaded['claim-cut-offs'],
    ...loaded['list'],
    ...loaded['held-entries'],
    ...loaded['feed'],
    ...loaded['admission'],
    ...loaded['enforcement'],
    ...loaded['id-digests'],
    ...loaded['log-tail'],
    fence: loaded['fence'],
    fenceWatch: loaded['fence-watch'],
    log: loaded['log'],
    watch: loaded['watch'],
    records: loaded['records'],
  } as Protocol;
}

function applyEdits(text: string, edits: readonly Edit[]): string {
  let edited = text;
  for (const { module, find, replace } of edits) {
    const occurrences = edited.split(find).length - 1;
    if (occurrences !== 1) {
      throw new Error(
        `expected the text to be changed once in ${MODULES[module]}, found it ${occurrences} times: ${find}`,
      );
    }
    edited = edited.replace(find, () => replace);
  }
  return edited;
}

/** Private fields and methods become ordinary ones, named with an underscore. */
function exposeFields(text: string): string {
  return text.replace(/#(?=[a-z])/g, '_').replace(/^\/\/# sourceMappingURL=.*$/m, '');
}

function withoutWaiting(text: string): string {
  return text.replace(/\b(async|await) /g, '');
}

/** Names every import absolutely, because a module without a file has no neighbours. */
function linkImports(text: string, file: string, urls: ReadonlyMap<string, string>): string {
  return text.replace(/^(import [^;]*? from |import )'([^']+)';$/gm, (_, head: string, specifier: string) => {
    if (!specifier.startsWith('.')) return `${head}'${import.meta.resolve(specifier)}';`;
    const path = resolve(dirname(file), specifier);
    return `${head}'${urls.get(path) ?? pathToFileURL(path).href}';`;
  });
}

function dataUrlOf(text: string): string {
  return `data:text/javascript;base64,${Buffer.from(text).toString('base64')}`;
}
