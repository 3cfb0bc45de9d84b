/**
 * Watching stock: first the present picture, then every change, each exactly once and in order,
 * also across a resumption.
 *
 * The picture is read in pages while changes go on. A page is brought up to a settled position of
 * the history before it is sent, and the items sent before receive their changes up to the same
 * position. So at any moment the watcher has the state of all items up to a sku as of one position,
 * and these two make the resume token.
 */

import { createHash } from 'node:crypto';
import { invalidField } from '@portcullis/guard/errors';
import { createViolations } from '../common/validation/violations.js';
import type { ChangeFeed, StockLevel } from './change-feed.js';
import { unknownItem } from './items.js';

/** Items that one call may name. */
export const SKUS_MAX = 200;
/** Items of one page of the picture. */
export const SNAPSHOT_PAGE_SIZE = 200;
/** The longest resume token that is looked at. */
export const RESUME_TOKEN_LENGTH_MAX = 256;

/** What watching needs of a store, beside the feed. */
export interface WatchStore {
  /** Items by sku, after one of them, among some or all. */
  levels(range: {
    afterSku: string;
    skus: readonly string[] | undefined;
    limit: number;
  }): Promise<readonly StockLevel[]>;
  /** Which of these items exist. */
  existingSkus(skus: readonly string[]): Promise<readonly string[]>;
  /** Whether the history has a change with this id. */
  isChange(changeId: bigint): Promise<boolean>;
}

/** What {@link watchStock} needs. */
export interface WatchDeps {
  readonly store: WatchStore;
  readonly feed: ChangeFeed;
}

/** Asks to be told of changes. */
export interface WatchStockRequest {
  /** All items when empty. */
  readonly skus: readonly string[];
  /** Of the last notice received; empty to begin with the picture. */
  readonly resumeToken: string;
}

/** The stock of one item as it was at some moment. */
export interface StockNotice extends StockLevel {
  /** Goes on after this notice. */
  readonly resumeToken: string;
}

/**
 * Notices until the signal is aborted, at the pace of the reader.
 *
 * @throws ServiceError FIELD_INVALID; NOT_FOUND for an unknown item; DEPENDENCY_UNAVAILABLE when the
 *   database stays away, and then the resume token of the last notice goes on
 */
export async function* watchStock(
  deps: WatchDeps,
  request: WatchStockRequest,
  signal: AbortSignal,
): AsyncGenerator<StockNotice, void, undefined> {
  checkWatchStock(request);
  const detach = deps.feed.attach();
  try {
    const watched = watchedItems(request.skus);
    const progress = await startProgress(deps, request, watched, signal);
    if (progress.snapshotSku !== undefined) yield* readSnapshot(deps, watched, progress, signal);
    while (!signal.aborted) {
      const upTo = await deps.feed.reach(progress.position + 1n, signal);
      yield* readChanges(deps, watched, progress, upTo);
    }
  } catch (error) {
    // The wait for the next change ends with the call: that is no failure.
    if (!signal.aborted) throw error;
  } finally {
    detach();
  }
}

/** The items of one call. */
interface Watched {
  /** All when undefined. */
  readonly skus: ReadonlySet<string> | undefined;
  /** Tells a resume token of this choice from one of another. */
  readonly fingerprint: string;
}

/** How far a call has come. */
interface Progress {
  /** The change up to which the watcher knows the items that it knows. */
  position: bigint;
  /** It knows the items up to this sku; undefined when it knows all. */
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

function watchedItems(skus: readonly string[]): Watched {
  const sorted = [...skus].sort();
  const fingerprint = createHash('sha256').update(sorted.join(' ')).digest('base64url').slice(0, 11);
  return { skus: skus.length === 0 ? undefined : new Set(skus), fingerprint };
}

async function startProgress(
  { store, feed }: WatchDeps,
  { skus, resumeToken }: WatchStockRequest,
  { fingerprint }: Watched,
  signal: AbortSignal,
): Promise<Progress> {
  if (resumeToken !== '') {
    const progress = parseResumeToken(resumeToken, fingerprint);
    // A database that was set back does not have the change; waiting for its id would skip those before it.
    const isKnown = progress.position === 0n || (await store.isChange(progress.position));
    if (!isKnown) throw invalidField('resume_token', 'is of a history that is no more: begin without');
    return progress;
  }
  if (skus.length > 0) {
    const existing = new Set(await store.existingSkus(skus));
    for (const sku of skus) if (!existing.has(sku)) throw unknownItem(sku);
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
  while (progress.snapshotSku !== undefined) {
    const page = pageOf(
      await store.levels({ afterSku: progress.snapshotSku, skus, limit: SNAPSHOT_PAGE_SIZE }),
    );
    // What the page has seen must be settled, or it would be told once more as a change.
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

/** The part of the picture that comes next. */
interface SnapshotPage {
  readonly levels: Map<string, StockLevel>;
  /** Undefined on the last page, to which all further items belong. */
  readonly lastSku: string | undefined;
}

function pageOf(levels: readonly StockLevel[]): SnapshotPage {
  const lastSku = levels.length < SNAPSHOT_PAGE_SIZE ? undefined : levels.at(-1)?.sku;
  return { levels: new Map(levels.map((level) => [level.sku, level])), lastSku };
}

/**
 * The changes up to a position. Those of items beyond the picture so far are not told: they bring
 * `page` up to date, or belong to a later one.
 */
async function* readChanges(
  { feed }: WatchDeps,
  watched: Watched,
  progress: Progress,
  upTo: bigint,
  page?: SnapshotPage,
): AsyncGenerator<StockNotice, void, undefined> {
  while (progress.position < upTo) {
    const read = await feed.read({ after: progress.position, upTo, skus: watched.skus });
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

/** Takes a change over unless the page has seen it, or is not the one that it belongs to. */
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

/** Throws FIELD_INVALID for what no notice of the same choice of items carried. */
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
