/** The command that revokes: it writes the entry, waits for instances if asked to, and returns a receipt. */

import type { Clock } from '@portcullis/guard/clock';
import { invalidField } from '@portcullis/guard/errors';
import { AuthError } from '../errors.js';
import type { LogEntry, Receipt } from '../records/revocations.js';
import type { InstanceReceipt, Wait } from './enforcement-watch.js';
import { checkFenceNames, type FenceReceipt } from './fence-watch.js';
import type { Fences } from './fences.js';
import type { Instances } from './instances.js';
import { checkReason } from './log.js';
import { WAITS_MAX } from './receipts.js';
import { type RevocationGroups, receiptOfWritten, type Written } from './revocation-groups.js';
import {
  type AccountTarget,
  applyTarget,
  type CheckedTarget,
  checkTarget,
  groupedTarget,
  isTargetKnown,
  isTokenTarget,
  type RevocationTransaction,
  type RevokedBy,
  type Target,
  type TargetDeps,
} from './revoke-targets.js';

/** A request to revoke. */
export interface RevokeRequest {
  readonly target: Target;
  readonly reason: string;
  readonly actor: string;
  /** The network of the caller. */
  readonly network?: string;
  readonly wait?: Wait;
  /** The fences to wait for, with FENCED. */
  readonly fences?: readonly string[];
  /** Ends the wait, not the revocation. */
  readonly signal?: AbortSignal;
}

/** What is known of a revocation when the call returns. */
export interface RevokeReceipt extends Receipt {
  /** Whether auth has found what the target names. */
  readonly targetKnown: boolean;
  /** The instances that sent a sync request shortly before; empty for a call that does not wait for instances. */
  readonly instances: readonly InstanceReceipt[];
  /** The named fences, in their order. */
  readonly fences: readonly FenceReceipt[];
}

/** The collaborators of the command. */
export interface RevokeDeps extends TargetDeps {
  readonly store: { transaction<T>(work: (tx: RevocationTransaction) => Promise<T>): Promise<T> };
  readonly clock: Clock;
  readonly instances: Pick<Instances, 'waits' | 'wait' | 'unready'>;
  readonly fences: Pick<Fences, 'waits' | 'wait'>;
  readonly groups: RevocationGroups;
  /** Called after the commit when a key was revoked, so that another one is made. */
  readonly onKeyRevoked: () => void;
}

/**
 * Revokes. When it returns, the entry is in the log and no fault can lose it.
 *
 * @throws ServiceError NOT_FOUND for an unknown session, user, client or key; FIELD_INVALID; CLAIM_UNSUPPORTED;
 *   RATE_LIMITED when too many calls wait; DEPENDENCY_UNAVAILABLE, after which the entry may or may not be in the log
 */
export async function revoke(deps: RevokeDeps, request: RevokeRequest): Promise<RevokeReceipt> {
  const { wait = 'NONE' } = request;
  checkRequest(deps, request);
  const target = await checkTarget(deps, request.target);
  const written = await writeRevocation(deps, target, { ...request, acknowledge: wait !== 'NONE' });
  if (target.kind === 'key') deps.onKeyRevoked();
  const receipt = { ...receiptOfWritten(written), targetKnown: isTargetKnown(request.target) };
  return { ...receipt, ...(await waitUntilEnforced(deps, written, { ...request, ...receipt })) };
}

/**
 * Checks a revocation by a claim of another issuer, and writes nothing. What it would revoke cannot be counted, because
 * auth has no record of other issuers' tokens.
 *
 * @throws ServiceError as {@link revoke}; FIELD_INVALID for other targets
 */
export async function checkOnly(
  deps: RevokeDeps,
  { reason, target }: Pick<RevokeRequest, 'reason' | 'target'>,
): Promise<void> {
  checkReason(reason);
  if (target.kind !== 'foreign' || target.foreign.what !== 'CLAIM') {
    throw invalidField('dry_run', 'must be set only with a claim; RevokeSessions counts sessions');
  }
  await checkTarget(deps, target);
}

/**
 * Checks a request before anything is written: a caller whose request is rejected must know that nothing was revoked.
 *
 * @throws ServiceError FIELD_INVALID; RATE_LIMITED when too many calls wait
 */
export function checkRequest(
  { instances, fences }: Pick<RevokeDeps, 'instances' | 'fences'>,
  { reason, wait = 'NONE', fences: names = [] }: Pick<RevokeRequest, 'reason' | 'wait' | 'fences'>,
): void {
  checkReason(reason);
  checkFenceNames(wait === 'FENCED', names);
  if (wait !== 'NONE' && instances.waits() + fences.waits() >= WAITS_MAX) {
    throw new AuthError('RATE_LIMITED', 'too many revocations wait for instances', { retryAfterMs: 1000 });
  }
}

/** Waits as the request asks for. @param written - the entry, the last of the log that the request is about */
export async function waitUntilEnforced(
  deps: { readonly instances: Pick<Instances, 'wait'>; readonly fences: Pick<Fences, 'wait'> },
  { appended, entry, committedAtMs, elapsedMs }: WaitedFor,
  {
    wait = 'NONE',
    fences: names = [],
    signal = NEVER,
    enforcedEverywhereBy,
  }: Pick<RevokeRequest, 'wait' | 'fences' | 'signal'> & Pick<Receipt, 'enforcedEverywhereBy'>,
): Promise<Pick<RevokeReceipt, 'instances' | 'fences'>> {
  if (wait === 'NONE') return { instances: [], fences: [] };
  const { epoch, epochNumber, leaseMs, lockedTime } = appended;
  const boundAtMs =
    committedAtMs + enforcedEverywhereBy.getTime() - lockedTime.getTime() - Math.ceil(elapsedMs);
  if (wait === 'FENCED') {
    const fenced = { epochNumber, sequence: entry.sequence, committedAtMs, boundAtMs };
    return { instances: [], fences: await deps.fences.wait(fenced, names, signal) };
  }
  const committed = { epoch, entry, committedAtMs, leaseMs, boundAtMs };
  return { instances: await deps.instances.wait(committed, wait, signal), fences: [] };
}

/** The entry that a call waits for. */
type WaitedFor = Omit<Written, 'entry'> & { readonly entry: Pick<LogEntry, 'entryId' | 'sequence'> };

const NEVER = new AbortController().signal;

/**
 * Writes one revocation, in a group if it can share a transaction.
 *
 * @throws ServiceError NOT_FOUND for an unknown session, user, client or key; RATE_LIMITED; DEPENDENCY_UNAVAILABLE
 */
export async function writeRevocation(
  deps: RevokeDeps,
  target: CheckedTarget,
  {
    reason,
    actor,
    network = '',
    wait,
    acknowledge,
  }: Pick<RevokeRequest, 'reason' | 'actor' | 'network' | 'wait'> & {
    /** Asks the instances to acknowledge the entry at once. */
    readonly acknowledge: boolean;
  },
): Promise<Written> {
  const by = { reason, actor, network };
  const fence = wait === 'FENCED';
  if (!isTokenTarget(target)) return await writeAlone(deps, target, { by, acknowledge, fence });
  const { sessionId, decide } = groupedTarget(target, by);
  const written = await deps.groups.write({
    caller: actor,
    ...(sessionId !== undefined && { sessionId }),
    decide: (session) => {
      const { revocation, event, why } = decide(session);
      const entry = { ...revocation, reason, actor, network, acknowledge, fence };
      return { entry, event, ...(why !== undefined && { why }) };
    },
  });
  if (written === undefined) throw new TypeError('a revocation has written nothing');
  return written;
}

/** A revocation that changes more rows than a session's. */
async function writeAlone(
  { store, clock }: RevokeDeps,
  target: AccountTarget,
  {
    by,
    acknowledge,
    fence,
  }: { readonly by: RevokedBy; readonly acknowledge: boolean; readonly fence: boolean },
): Promise<Written> {
  const { reason, actor, network } = by;
  let startedMs = 0;
  const appended = await store.transaction(async (tx) => {
    const { revocation, event } = await applyTarget(tx, target, by);
    startedMs = clock.monotonicMs();
    const [, result] = await Promise.all([
      tx.events.record(event),
      // An instance that learns of a revoked key must sync at once, to learn which key signs in its place.
      tx.revocations.append([
        { ...revocation, reason, actor, network, acknowledge: acknowledge || target.kind === 'key', fence },
      ]),
    ]);
    return result;
  });
  const committedAtMs = clock.monotonicMs();
  const [entry] = appended.entries;
  if (entry === undefined) throw new TypeError('the log has written no entry');
  return { appended, entry, committedAtMs, elapsedMs: committedAtMs - startedMs };
}
