/** ApplyPolicy: an administrator replaces the policy. */

import { randomUUID } from 'node:crypto';
import type { Clock } from '@portcullis/guard/clock';
import { invalidField } from '@portcullis/guard/errors';
import { parseRequestId } from '../../common/validation/request-id.js';
import { AuthError } from '../errors.js';
import type { Policy, PolicyClient, PolicyDocument } from '../records/policy.js';
import type { Receipt } from '../records/revocations.js';
import { checkReason, enforcedEverywhereBy } from '../revocation/log.js';
import type { AuthStore, AuthTransaction } from '../transaction.js';
import {
  applyRights,
  clientsAfter,
  etagOfAll,
  hasAfter,
  planRights,
  type RightsPlan,
  rightsFaultsIn,
  shownClients,
} from './client-rights.js';
import { differencesBetween, lostRights, type PolicyChange } from './differences.js';
import { FAULTS_MAX, faultsOf, type PolicyFault, withBuiltIns } from './document.js';
import type { NarrowingResult, Narrowings } from './narrowings.js';
import { policyOf } from './policy.js';
import { policyEvents } from './policy-events.js';

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
  /** What clients may ask for. A client that is not named keeps what it has. Default: none. */
  readonly clients?: readonly PolicyClient[];
  /** Whether the caller may change clients. Default: no. */
  readonly mayChangeClients?: boolean;
  /** The field of the request at which the faults of the new policy are. */
  readonly field: string;
}

/** A policy as answers have it. */
export interface PlainPolicy extends PolicyDocument, Pick<Policy, 'etag' | 'updateTime'> {
  /** What clients may ask for: the first by id. */
  readonly clients: readonly PolicyClient[];
}

/** What has become of a request. */
export interface AppliedPolicy extends NarrowingResult {
  /** The policy in force; in a dry run, the one that would be. */
  readonly policy: PlainPolicy;
  readonly changes: readonly PolicyChange[];
  /** The number of clients whose earlier tokens were revoked. */
  readonly clients: bigint;
}

export interface PolicyDeps {
  readonly store: AuthStore;
  readonly clock: Clock;
  readonly narrowings: Narrowings;
  /** Called after the commit of each change. */
  readonly onChanged?: (() => void) | undefined;
}

/**
 * Changes the policy. Returns when every session that lost a scope has lost it, and the revocations are committed, also
 * those of clients that lost a right. When it
 * fails after the change, the housekeeping goes on, and a repeated request waits for it.
 *
 * @throws ServiceError FIELD_INVALID with all faults; ETAG_MISMATCH; SCOPE_MISSING for a change of clients by who may not; POLICY_IN_USE for a role that users have, and for what
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
    clients = 0n,
    revocation,
    ...applied
  } = await deps.store.transaction((tx) => tx.once(idempotent, () => apply(deps, tx, request, edit)), {
    importance: 'promise',
  });
  // Whoever applies the policy in force wants to know that it is in force, also after an earlier request that failed.
  let narrowed = NOTHING;
  for (const id of narrowingId === undefined ? earlier : [narrowingId]) {
    narrowed = await deps.narrowings.finish(id);
  }
  return { ...applied, clients, ...later(narrowed, revocation) };
}

const NOTHING: NarrowingResult = { users: 0n, sequence: 0n, enforcedEverywhereBy: undefined };

/** Longest commit that a receipt written before it allows for, in milliseconds. */
const COMMIT_MS_MAX = 1000;

/** The receipt of both, which is that of the later one. */
function later(narrowed: NarrowingResult, revocation: Receipt | undefined): NarrowingResult {
  // The batches of users follow the commit in which clients lost their rights.
  if (revocation === undefined || narrowed.enforcedEverywhereBy !== undefined) return narrowed;
  return { users: narrowed.users, ...revocation };
}

async function planOnly(
  { store }: PolicyDeps,
  request: PolicyRequest,
  edit: PolicyEdit,
): Promise<AppliedPolicy> {
  return await store.transaction(async (tx) => {
    const before = await tx.policy.current();
    const { document, changes, shown, rights } = await plan(tx, before, request, edit);
    const after = changes.length === 0 ? before : policyOf(document, before);
    // With the etag of the policy in force: there is no other yet.
    const policy = { ...plainPolicy(after, clientsAfter(shown, rights)), etag: etagOfAll(before, shown) };
    return { policy, changes, clients: 0n, ...NOTHING };
  });
}

async function apply(
  { onChanged, clock }: PolicyDeps,
  tx: AuthTransaction,
  request: PolicyRequest,
  edit: PolicyEdit,
): Promise<
  Pick<AppliedPolicy, 'policy' | 'changes'> & {
    /** Missing in answers of the version before. */
    readonly clients?: bigint;
    /** Of the clients that lost a right. */
    readonly revocation?: Receipt | undefined;
    readonly narrowingId: bigint | undefined;
    /** Narrowings of earlier changes that are not finished, when this one changes nothing. */
    readonly earlier?: readonly bigint[];
  }
> {
  // Clients are locked before the policy, everywhere.
  if ((edit.clients ?? []).length > 0) await tx.clients.lockAll();
  const before = await tx.policy.lock();
  const { document, changes, shown, rights } = await plan(tx, before, request, edit);
  if (changes.length === 0) {
    const earlier = await tx.narrowings.pending();
    return { policy: plainPolicy(before, shown), changes, narrowingId: undefined, earlier };
  }
  const { actor, reason, network } = request;
  const eventId = randomUUID();
  const policy = await tx.policy.replace(document);
  const lost = lostRights(changes, before);
  // In the same commit, so that it is worked off even if this process stops.
  const narrowingId =
    lost.scopes.length === 0 ? undefined : await tx.narrowings.add({ ...lost, actor, eventId });
  const { requestId } = request;
  const recorded = { eventId, subject: {}, actor, reason: reason || 'policy changed', network, requestId };
  await Promise.all(policyEvents(recorded, changes).map((event) => tx.events.record(event)));
  const entries = await applyRights(tx, rights, { actor, reason, eventId });
  const startedMs = clock.monotonicMs();
  const appended = entries.length === 0 ? undefined : await tx.revocations.append(entries);
  tx.afterCommit(() => onChanged?.());
  const last = appended?.entries.at(-1);
  const elapsedMs = COMMIT_MS_MAX + clock.monotonicMs() - startedMs;
  return {
    policy: plainPolicy(policy, clientsAfter(shown, rights)),
    changes,
    narrowingId,
    clients: BigInt(entries.length),
    revocation: appended &&
      last && { sequence: last.sequence, enforcedEverywhereBy: enforcedEverywhereBy(appended, elapsedMs) },
  };
}

/** The new policy and its differences. */
interface Planned {
  readonly document: PolicyDocument;
  readonly changes: readonly PolicyChange[];
  /** The clients that a policy shows, as they are. */
  readonly shown: readonly PolicyClient[];
  readonly rights: RightsPlan;
}

/** The new policy and its differences, after all checks. */
async function plan(
  tx: AuthTransaction,
  before: Policy,
  { etag }: PolicyRequest,
  { edit, field, clients = [], mayChangeClients = false }: PolicyEdit,
): Promise<Planned> {
  const shown = await shownClients(tx);
  if (etag !== '' && etag !== etagOfAll(before, shown)) {
    throw new AuthError('ETAG_MISMATCH', 'the policy was changed since it was read');
  }
  const document = withBuiltIns(edit(before));
  const faults = faultsOf(document, clients);
  if (faults.length > 0) throw invalidPolicy(field, faults);
  const rights = await planRights(tx, clients);
  if (rights.changes.length > 0 && !mayChangeClients) {
    throw new AuthError(
      'SCOPE_MISSING',
      'changing the rights of clients requires the scope auth.clients.write',
    );
  }
  const rightsFaults = [...rightsFaultsIn(rights, document)].slice(0, FAULTS_MAX);
  if (rightsFaults.length > 0) throw invalidPolicy(field, rightsFaults);
  const changes = differencesBetween(before, document);
  await requireUnused(tx, before, { document, changes, rights });
  return { document, changes: [...changes, ...rights.changes], shown, rights };
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
  {
    document: after,
    changes,
    rights,
  }: Pick<Planned, 'document' | 'rights'> & { readonly changes: readonly PolicyChange[] },
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
    ...[...clients]
      .map(([word, clientIds]) => [word, clientIds.filter((id) => hasAfter(rights, id, word))] as const)
      .filter(([, clientIds]) => clientIds.length > 0)
      .map(([word, clientIds]) => `${word} is a right of client ${clientIds.join(', ')}`),
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
export function plainPolicy(policy: Policy, clients: readonly PolicyClient[]): PlainPolicy {
  const { services, roles, updateTime } = policy;
  return { services, roles, clients, etag: etagOfAll(policy, clients), updateTime };
}
