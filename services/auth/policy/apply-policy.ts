/** ApplyPolicy: an administrator replaces the policy. */

import { randomUUID } from 'node:crypto';
import { invalidField } from '@portcullis/guard/errors';
import { parseRequestId } from '../../common/validation/request-id.js';
import { AuthError } from '../errors.js';
import type { Policy, PolicyDocument } from '../records/policy.js';
import { checkReason } from '../revocation/log.js';
import type { AuthStore, AuthTransaction } from '../transaction.js';
import { changeText, differencesBetween, lostRights, type PolicyChange } from './differences.js';
import { faultsOf, type PolicyFault, withBuiltIns } from './document.js';
import type { NarrowingResult, Narrowings } from './narrowings.js';
import { policyOf } from './policy.js';

/** Maximum number of changes that a security event names. */
const EVENT_CHANGES_MAX = 20;

/** A request to change the policy. */
export interface PolicyRequest {
  readonly actor: string;
  /** The etag of the policy that the caller has read; empty for any. */
  readonly etag: string;
  /** Returns what would change, and changes nothing. */
  readonly dryRun: boolean;
  /** A repeated request with the same id changes nothing and returns the first response. */
  readonly requestId: string;
  readonly reason: string;
  /** The network of the administrator, for the security event. */
  readonly network: string;
}

/** How a request becomes the new policy. */
export interface PolicyEdit {
  readonly method: string;
  /** What the request says beside etag and reason, for the comparison with an earlier request of the same id. */
  readonly payload: readonly unknown[];
  /**
   * The new policy, made from the one in force.
   *
   * @throws ServiceError FIELD_INVALID
   */
  edit(before: Policy): PolicyDocument;
  /** The field of the request at which the faults of the new policy are. */
  readonly field: string;
}

/** A policy as answers have it. */
export type PlainPolicy = PolicyDocument & Pick<Policy, 'etag' | 'updateTime'>;

/** What has become of a request. */
export interface AppliedPolicy extends NarrowingResult {
  /** The policy in force; in a dry run, the one that would be. */
  readonly policy: PlainPolicy;
  readonly changes: readonly PolicyChange[];
}

export interface PolicyDeps {
  readonly store: AuthStore;
  readonly narrowings: Narrowings;
  /** Called after the commit of each change. */
  readonly onChanged?: (() => void) | undefined;
}

/**
 * Changes the policy. Returns when every session that lost a scope has lost it, and the revocations are committed. When it
 * fails after the change, the housekeeping goes on, and a repeated request waits for it.
 *
 * @throws ServiceError FIELD_INVALID with all faults; ETAG_MISMATCH; POLICY_IN_USE for a role that users have, and for what
 *   clients have rights to; REQUEST_ID_REUSED; DEPENDENCY_UNAVAILABLE
 */
export async function changePolicy(
  deps: PolicyDeps,
  request: PolicyRequest,
  edit: PolicyEdit,
): Promise<AppliedPolicy> {
  checkReason(request.reason);
  if (request.dryRun) return await planOnly(deps, request, edit);
  const requestId = parseRequestId(request.requestId);
  if (requestId === '') throw invalidField('request_id', 'must be set');
  const { actor, etag, reason } = request;
  const payload = JSON.stringify([etag, reason, ...edit.payload]);
  const idempotent = { subject: actor, method: edit.method, requestId, payload };
  const {
    narrowingId,
    earlier = [],
    ...applied
  } = await deps.store.transaction((tx) => tx.once(idempotent, () => apply(deps, tx, request, edit)), {
    importance: 'promise',
  });
  // Whoever applies the policy in force wants to know that it is in force, also after an earlier request that failed.
  let narrowed = NOTHING;
  for (const id of narrowingId === undefined ? earlier : [narrowingId]) {
    narrowed = await deps.narrowings.finish(id);
  }
  return { ...applied, ...narrowed };
}

const NOTHING: NarrowingResult = { users: 0n, sequence: 0n, enforcedEverywhereBy: undefined };

async function planOnly(
  { store }: PolicyDeps,
  request: PolicyRequest,
  edit: PolicyEdit,
): Promise<AppliedPolicy> {
  return await store.transaction(async (tx) => {
    const before = await tx.policy.current();
    const { document, changes } = await plan(tx, before, request, edit);
    const policy = changes.length === 0 ? before : policyOf(document, before);
    return { policy: plainPolicy(policy), changes, ...NOTHING };
  });
}

async function apply(
  { onChanged }: PolicyDeps,
  tx: AuthTransaction,
  request: PolicyRequest,
  edit: PolicyEdit,
): Promise<
  Pick<AppliedPolicy, 'policy' | 'changes'> & {
    readonly narrowingId: bigint | undefined;
    /** Narrowings of earlier changes that are not finished, when this one changes nothing. */
    readonly earlier?: readonly bigint[];
  }
> {
  const before = await tx.policy.lock();
  const { document, changes } = await plan(tx, before, request, edit);
  if (changes.length === 0) {
    const earlier = await tx.narrowings.pending();
    return { policy: plainPolicy(before), changes, narrowingId: undefined, earlier };
  }
  const { actor, reason, network } = request;
  const eventId = randomUUID();
  const policy = await tx.policy.replace(document);
  const lost = lostRights(changes, before);
  // In the same commit, so that it is worked off even if this process stops.
  const narrowingId =
    lost.scopes.length === 0 ? undefined : await tx.narrowings.add({ ...lost, actor, eventId });
  await tx.events.record({
    type: 'policy-changed',
    eventId,
    subject: {},
    actor,
    reason: reason || 'policy changed',
    network,
    requestId: request.requestId,
    details: { changes: changes.slice(0, EVENT_CHANGES_MAX).map(changeText), count: changes.length },
  });
  tx.afterCommit(() => onChanged?.());
  return { policy: plainPolicy(policy), changes, narrowingId };
}

/** The new policy and its differences, after all checks. */
async function plan(
  tx: AuthTransaction,
  before: Policy,
  { etag }: PolicyRequest,
  { edit, field }: PolicyEdit,
): Promise<{ readonly document: PolicyDocument; readonly changes: readonly PolicyChange[] }> {
  if (etag !== '' && etag !== before.etag) {
    throw new AuthError('ETAG_MISMATCH', 'the policy was changed since it was read');
  }
  const document = withBuiltIns(edit(before));
  const faults = faultsOf(document);
  if (faults.length > 0) throw invalidPolicy(field, faults);
  const changes = differencesBetween(before, document);
  await requireUnused(tx, before, document, changes);
  return { document, changes };
}

function invalidPolicy(field: string, faults: readonly PolicyFault[]): Error {
  const violations = faults.map((fault) => ({ ...fault, field: `${field}.${fault.field}` }));
  const message = violations.map((violation) => `${violation.field}: ${violation.description}`).join('; ');
  return new AuthError('FIELD_INVALID', message.slice(0, MESSAGE_CHARACTERS_MAX), { violations });
}

/** Longest message about several faults, in characters. */
const MESSAGE_CHARACTERS_MAX = 1000;

/** What users or clients have is not removed with it: they would fail later, far from the change that caused it. */
async function requireUnused(
  tx: AuthTransaction,
  before: Policy,
  after: PolicyDocument,
  changes: readonly PolicyChange[],
): Promise<void> {
  const removed = changes.filter(({ kind }) => kind === 'REMOVED');
  const roles = removed.flatMap(({ role, scope }) =>
    role !== undefined && scope === undefined ? [role] : [],
  );
  const ofServices = removed.filter(({ role }) => role === undefined);
  const scopes = ofServices.flatMap(({ scope }) => scope ?? []);
  const audiences = ofServices.flatMap(({ audience, scope, clientId }) =>
    scope === undefined && clientId === undefined ? (audience ?? []) : [],
  );
  const [users, clients] = await Promise.all([
    tx.policy.countUsers(roles),
    tx.policy.clientsNaming({ scopes, audiences }),
  ]);
  const present = new Set(after.services.flatMap((service) => service.scopes));
  const problems = [
    ...[...users].map(([role, count]) => `role ${role} has ${count} users`),
    ...[...clients].map(([word, clientIds]) => `${word} is a right of client ${clientIds.join(', ')}`),
    ...scopes
      .filter((scope) => present.has(scope))
      .map(
        (scope) =>
          `scope ${scope} belongs to ${before.audienceOfScope.get(scope)}: remove it before it moves`,
      ),
  ];
  if (problems.length === 0) return;
  throw new AuthError('POLICY_IN_USE', problems.join('; ').slice(0, MESSAGE_CHARACTERS_MAX));
}

/** The part of a policy that answers contain. */
export function plainPolicy({ services, roles, etag, updateTime }: Policy): PlainPolicy {
  return { services, roles, etag, updateTime };
}
