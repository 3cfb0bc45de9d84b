/**
 * Watching stock: first a snapshot, then every change, each exactly once and in order, also across a resumption.
 *
 * The snapshot is read in pages while changes go on. Each page is brought up to a settled position of the history before
 * it is sent, and the items sent before receive their changes up to the same position. So at any moment the watcher knows
 * all items up to a sku as of one position. The resume token holds that sku and that position.
 */

import { createHash } from 'node:crypto';
import { invalidField } from '@portcullis/guard/errors';
import { createViolations } from '../common/validation/violations.js';
import type { ChangeFeed } from './change-feed.js';
import { itemNotFound } from './items.js';
import { type ReadSnapshot, shareSnapshots } from './shared-snapshots.js';
import type { StockLevel } from './stock.js';

/** Maximum number of items that one call may name. */
const SKUS_MAX = 200;
/** Items of one page of the snapshot. */
export const SNAPSHOT_PAGE_SIZE = 200;
/** The longest resume token that is parsed, in characters. */
const RESUME_TOKEN_LENGTH_MAX = 256;

/** Reads the stock for watchers. */
export interface WatchStore {
  readonly levels: ReadSnapshot;
  /** Which of these items exist. `caller` is the user whom it is for, as in {@link StockPlace.caller}. */
  existingSkus(skus: readonly string[], caller?: string): Promise<readonly string[]>;
  /** Whether the history has a change with this id. */
  isChange(changeId: bigint, caller?: string): Promise<boolean>;
}

interface WatchDeps {
  readonly store: WatchStore;
  readonly feed: ChangeFeed;
}

/** A request to watch stock. */
interface WatchStockRequest {
  /** All items when empty. */
  readonly skus: readonly string[];
  /** Of the last notice received; empty to begin with a snapshot. */
  readonly resumeToken: string;
  /** The user who watches. */
  readonly caller?: string;
}

/** The stock of one item as it was at some moment. */
export interface StockNotice extends StockLevel {
  /** Resumes after this notice. */
  readonly resumeToken: string;
}

/** Watches of stock. */
export interface StockWatch {
  /**
   * Sends notices until the signal is aborted, at the pace of the reader.
   *
   * @throws ServiceError FIELD_INVALID; NOT_FOUND for an unknown item; DEPENDENCY_UNAVAILABLE when the database stays
   *   unreadable: the resume token of the last notice is still valid
   */
  watch(request: WatchStockRequest, signal: AbortSignal): AsyncGenerator<StockNotice, void, undefined>;
}

/** Creates watches of stock. */
export function createStockWatch({ store, feed }: WatchDeps): StockWatch {
  const deps = { store: { ...store, levels: shareSnapshots(store.levels) }, feed };
  return { watch: (request, signal) => watchStock(deps, request, signal) };
}

async function* watchStock(
  deps: WatchDeps,
  request: WatchStockRequest,
  signal: AbortSignal,
): AsyncGenerator<StockNotice, void, undefined> {
  checkWatchStock(request);
  const detach = deps.feed.attach();
  try {
    const watched = watchedItems(request);
    const progress = await startProgress(deps, request, watched, signal);
    if (progress.snapshotSku !== undefined) yield* readSnapshot(deps, watched, progress, signal);
    while (!signal.aborted) {
      const upTo = await deps.feed.reach(progress.position + 1n, signal);
      yield* readChanges(deps, watched, progress, upTo);
    }
  } catch (error) {
    // When the call ends, the wait for the next change is rejected: that is no failure.
    if (!signal.aborted) throw error;
  } finally {
    detach();
  }
}

/** The items that one call watches. */
interface Watched {
  /** All when undefined. */
  readonly skus: ReadonlySet<string> | undefined;
  /** Distinguishes resume tokens of different choices of items. */
  readonly fingerprint: string;
  readonly caller: string | undefined;
}

/** The position of a watcher. */
interface Progress {
  /** The change up to which the known items are up to date. */
  position: bigint;
  /** The watcher knows the items up to this sku; undefined when it knows all. */
  snapshotSku: string | undefined;
}

function checkWatchStock({ skus }: WatchStockRequest): void {
  const violations = createViolations();
  const hasGoodLength = skus.length <= SKUS_MAX;
  violations.require('skus', hasGoodLength, `must be ${SKUS_MAX} at most`);
  const seen = new Set<string>();
  for (const [index, sku] of (hasGoodLength ? skus : []).entries()) {
    violations.requireSku(`skus[${index}]`, sku);
    violations.require(`skus[${index}]`, !seen.has(sku), 'must not be there twice');
    seen.add(sku);
  }
  violations.throwIfAny();
}

function watchedItems({ skus, caller }: WatchStockRequest): Watched {
  const sorted = [...skus].sort();
  const fingerprint = createHash('sha256').update(sorted.join(' ')).digest('base64url').slice(0, 11);
  return { skus: skus.length === 0 ? undefined : new Set(skus), fingerprint, caller };
}

async function startProgress(
  { store, feed }: WatchDeps,
  { skus, resumeToken }: WatchStockRequest,
  { fingerprint, caller }: Watched,
  signal: AbortSignal,
): Promise<Progress> {
  if (resumeToken !== '') {
    const progress = parseResumeToken(resumeToken, fingerprint);
    // A restored database lacks the change; waiting for its id would skip the changes before it.
    const isKnown = progress.position === 0n || (await store.isChange(progress.position, caller));
    if (!isKnown) throw invalidField('resume_token', 'is of a history that is no more: begin without');
    return progress;
  }
  if (skus.length > 0) {
    const existing = new Set(await store.existingSkus(skus, caller));
    for (const sku of skus) if (!existing.has(sku)) throw itemNotFound(sku);
  }
  return { position: await feed.reach(0n, signal), snapshotSku: '' };
}

async function* readSnapshot(
  deps: WatchDeps,
  watched: Watched,
  progress: Progress,
  signal: AbortSignal,
): AsyncGenerator<StockNotice, void, undefined> {
  const { store, feed } = deps;
  const skus = watched.skus && [...watched.skus];
  const range = { skus, limit: SNAPSHOT_PAGE_SIZE, caller: watched.caller };
  while (progress.snapshotSku !== undefined) {
    const page = pageOf(await store.levels({ ...range, afterSku: progress.snapshotSku }));
    // Changes that the page contains must be settled, or they would be sent once more.
    let newest = progress.position;
    for (const { changeId } of page.levels.values()) if (changeId > newest) newest = changeId;
    const upTo = await feed.reach(newest, signal);
    yield* readChanges(deps, watched, progress, upTo, page);
    for (const level of [...page.levels.values()].sort(bySku)) {
      progress.snapshotSku = level.sku;
      yield noticeOf(level, watched, progress);
    }
    if (page.lastSku === undefined) progress.snapshotSku = undefined;
  }
}

/** The next part of the snapshot. */
interface SnapshotPage {
  readonly levels: Map<string, StockLevel>;
  /** Undefined on the last page, to which all further skus belong. */
  readonly lastSku: string | undefined;
}

function pageOf(levels: readonly StockLevel[]): SnapshotPage {
  const lastSku = levels.length < SNAPSHOT_PAGE_SIZE ? undefined : levels.at(-1)?.sku;
  return { levels: new Map(levels.map((level) => [level.sku, level])), lastSku };
}

/**
 * Sends the changes up to a position. Changes of items beyond the snapshot so far are not sent: they bring `page` up to
 * date, or belong to a later page.
 */
async function* readChanges(
  { feed }: WatchDeps,
  watched: Watched,
  progress: Progress,
  upTo: bigint,
  page?: SnapshotPage,
): AsyncGenerator<StockNotice, void, undefined> {
  while (progress.position < upTo) {
    const read = await feed.read({ after: progress.position, upTo, ...watched });
    for (const change of read.changes) {
      if (progress.snapshotSku === undefined || change.sku <= progress.snapshotSku) {
        progress.position = change.changeId;
        yield noticeOf(change, watched, progress);
      } else if (page !== undefined) {
        update(page, change);
      }
    }
    progress.position = read.upTo;
  }
}

/** Applies a change, unless the page contains it already or does not cover its sku. */
function update({ levels, lastSku }: SnapshotPage, change: StockLevel): void {
  if (lastSku !== undefined && change.sku > lastSku) return;
  const known = levels.get(change.sku);
  if (known === undefined || known.changeId < change.changeId) levels.set(change.sku, change);
}

function bySku(one: StockLevel, other: StockLevel): number {
  return one.sku < other.sku ? -1 : 1;
}

function noticeOf(level: StockLevel, { fingerprint }: Watched, progress: Progress): StockNotice {
  return { ...level, resumeToken: resumeTokenOf(progress, fingerprint) };
}

function resumeTokenOf({ position, snapshotSku }: Progress, fingerprint: string): string {
  const parts = [String(position), fingerprint, ...(snapshotSku === undefined ? [] : [snapshotSku])];
  return Buffer.from(parts.join(' '), 'utf8').toString('base64url');
}

/** @throws ServiceError FIELD_INVALID for a token that no notice of the same choice of items carried */
function parseResumeToken(token: string, fingerprint: string): Progress {
  const text = token.length > RESUME_TOKEN_LENGTH_MAX ? '' : Buffer.from(token, 'base64url').toString('utf8');
  const match = /^(0|[1-9][0-9]{0,17}) ([A-Za-z0-9_-]{11})(?: ([A-Z0-9][A-Z0-9._-]{0,63}))?$/.exec(text);
  const [, position = '0', givenFingerprint, snapshotSku] = match ?? [];
  const progress = { position: BigInt(position), snapshotSku };
  if (match === null || resumeTokenOf(progress, givenFingerprint ?? '') !== token) {
    throw invalidField('resume_token', 'must be the resume_token of a notice');
  }
  if (givenFingerprint !== fingerprint) {
    throw invalidField('resume_token', 'must be of a call that watched the same items');
  }
  return progress;
}
