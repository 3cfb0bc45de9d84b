/** The handlers of RevocationService: they translate between messages and the domain. */

import {
  invalidField,
  type Principal,
  principalOf,
  type RevocationSource,
  type ServiceHandlers,
  signalOf,
} from '@portcullis/guard';
import type { Duration } from '../../../proto/gen/google/protobuf/duration.js';
import type {
  FenceReceipt as FenceReceiptMessage,
  ForeignTarget as ForeignTargetMessage,
  Instance,
  InstanceReceipt as InstanceReceiptMessage,
  Revocation as RevocationMessage,
  RevocationServiceService,
  RevokeRequest,
  RevokeResult,
  RevokeTarget,
  SessionFilter as SessionFilterMessage,
} from '../../../proto/gen/portcullis/revocation/v1/revocation.js';
import {
  EnforcementState,
  EntryKind,
  FenceState,
  RevokeWait,
} from '../../../proto/gen/portcullis/revocation/v1/revocation.js';
import { parseUuid } from '../../common/validation/identifiers.js';
import { adminOf } from '../accounts/admin.js';
import { OWN_AUDIENCE } from '../accounts/roles.js';
import type { SessionFilter } from '../records/sessions.js';
import type { InstanceReceipt, Wait } from './enforcement-watch.js';
import type { Epochs } from './epochs.js';
import type { FenceReceipt } from './fence-watch.js';
import type { ListedInstance } from './instance-records.js';
import type { Instances } from './instances.js';
import type { ListedRevocation, RevocationRecords } from './listed-revocations.js';
import { checkServiceName, type ForeignTarget } from './log.js';
import type { Revocations } from './revocations.js';
import type { OwnToken, TargetResult } from './revoke-many.js';
import type { Target } from './revoke-targets.js';

export interface RevocationHandlersDeps {
  readonly revocations: Pick<
    Revocations,
    'revoke' | 'revokeMany' | 'revokeSessions' | 'countSessions' | 'checkOnly'
  >;
  readonly revocationRecords: RevocationRecords;
  readonly instances: Pick<Instances, 'list'>;
  readonly epochs: Epochs;
  /** Answers Sync and Pull; auth's own list uses it, too. */
  readonly source: RevocationSource;
}

/** Creates the handlers of RevocationService. */
export function createRevocationHandlers(
  deps: RevocationHandlersDeps,
): ServiceHandlers<RevocationServiceService> {
  const { revocations, revocationRecords, instances, epochs, source } = deps;
  return {
    revoke: async (request, call) => {
      const { reason, wait, targets, fences, dryRun } = request;
      const principal = principalOf(call);
      if (dryRun) {
        if (targets.length > 0) throw invalidField('dry_run', 'must not be set with targets');
        await revocations.checkOnly({ reason, target: targetOf(request) });
        return { ...NOTHING_REVOKED, targetKnown: false, results: [] };
      }
      const by = {
        reason,
        ...adminOf(principalOf(call), call),
        wait: waitOf(wait),
        fences,
        signal: signalOf(call),
      };
      if (targets.length > 0) {
        if (request.target !== undefined) throw invalidField('targets', 'must be empty when target is set');
        const receipt = await revocations.revokeMany({
          ...by,
          targets: targets.map(memberOf),
          own: ownTokenOf(principal),
        });
        const results = receipt.results.map(resultMessageOf);
        return {
          ...receipt,
          fences: receipt.fences.map(fenceMessageOf),
          targetKnown: results.every(({ targetKnown }) => targetKnown),
          instances: receipt.instances.map(receiptMessageOf),
          results,
        };
      }
      const receipt = await revocations.revoke({ ...by, target: targetOf(request) });
      return {
        ...receipt,
        instances: receipt.instances.map(receiptMessageOf),
        fences: receipt.fences.map(fenceMessageOf),
        results: [],
      };
    },
    revokeSessions: async ({ filter, reason, wait, dryRun, fences }, call) => {
      const sessionFilter = filterOf(filter);
      const principal = principalOf(call);
      const caller = { ...adminOf(principalOf(call), call), signal: signalOf(call) };
      if (dryRun) {
        const { sessionCount, sessions } = await revocations.countSessions(sessionFilter, caller);
        return { ...NOTHING_REVOKED, sessionCount: BigInt(sessionCount), sessions: [...sessions] };
      }
      const revoked = await revocations.revokeSessions({
        ...caller,
        filter: sessionFilter,
        reason,
        wait: waitOf(wait),
        fences,
        own: ownTokenOf(principal),
      });
      return {
        ...revoked,
        sessionCount: BigInt(revoked.sessionCount),
        sessions: [],
        instances: revoked.instances.map(receiptMessageOf),
        fences: revoked.fences.map(fenceMessageOf),
      };
    },
    listRevocations: async (request) => {
      textOf('actor', request.actor);
      const eventId = request.eventId === '' ? '' : parseUuid(request.eventId);
      if (eventId === undefined) throw invalidField('event_id', 'must be a UUID');
      const { revocations: page, nextPageToken } = await revocationRecords.list({ ...request, eventId });
      return { revocations: page.map(revocationMessageOf), nextPageToken };
    },
    getRevocation: async ({ sequence }) => {
      const { revocation, instances: enforcing } = await revocationRecords.get(sequence);
      return {
        revocation: revocationMessageOf(revocation),
        instances: enforcing.map(({ state, lastSyncAgeMs, ...instance }) => ({
          ...instance,
          state: STATES[state],
          lastSyncAge: lastSyncAgeMs === undefined ? undefined : durationOf(lastSyncAgeMs),
        })),
      };
    },
    sync: (request, call) => source.sync(inOwnName(request, principalOf(call)), signalOf(call)),
    pull: (request, call) => source.pull(inOwnName(request, principalOf(call)), signalOf(call)),
    listInstances: async (request) => {
      const { instances: page, nextPageToken } = await instances.list(request);
      return { instances: page.map(instanceMessageOf), nextPageToken };
    },
    openEpoch: async (request, call) => {
      const opened = await epochs.open({ ...request, ...adminOf(principalOf(call), call) });
      return { ...opened, endedSessions: BigInt(opened.endedSessions) };
    },
  };
}

/**
 * The request of an instance under the name of the client that sent it, whatever name it states: acknowledgements, leases
 * and limits belong to the holder of the client's key.
 *
 * @throws ServiceError FIELD_INVALID for a name that is not printable, and for a client with the name of this service
 */
function inOwnName<Request extends { readonly service: string }>(
  request: Request,
  { clientId }: Principal,
): Request {
  checkServiceName(request.service);
  // Auth itself follows the log without a client.
  if (clientId === OWN_AUDIENCE) throw invalidField('service', `must not be ${OWN_AUDIENCE}`);
  return { ...request, service: clientId };
}

function targetOf({ target }: Pick<RevokeRequest, 'target'> | RevokeTarget): Target {
  switch (target?.$case) {
    case 'token':
      return { kind: 'token', token: target.value };
    case 'tokenId':
      return { kind: 'token-id', tokenId: target.value };
    case 'sessionId':
      return { kind: 'session', sessionId: target.value };
    case 'userId':
      return { kind: 'user', userId: target.value };
    case 'clientId':
      return { kind: 'client', clientId: target.value };
    case 'keyId':
      return { kind: 'key', keyId: target.value };
    case 'foreign':
      return { kind: 'foreign', foreign: foreignOf(target.value) };
    case undefined:
      throw invalidField('target', 'must be set');
  }
}

/** @throws ServiceError FIELD_INVALID that names the target by its place */
function memberOf(member: RevokeTarget, index: number): Target {
  if (member.target === undefined) throw invalidField(`targets[${index}]`, 'must be set');
  return targetOf(member);
}

function ownTokenOf({ tokenId, sessionId, subject, clientId }: Principal): OwnToken {
  return { tokenId, sessionId, userId: subject, clientId };
}

function foreignOf({ issuer, what }: ForeignTargetMessage): ForeignTarget {
  switch (what?.$case) {
    case 'tokenId':
      return { issuer, what: 'TOKEN', id: what.value };
    case 'sessionId':
      return { issuer, what: 'SESSION', id: what.value };
    case 'subject':
      return { issuer, what: 'USER', id: what.value };
    case 'claim':
      return { issuer, what: 'CLAIM', claim: what.value.claim, id: what.value.value };
    case undefined:
      throw invalidField('foreign.what', 'must be set');
  }
}

function waitOf(wait: RevokeWait): Wait {
  switch (wait) {
    case RevokeWait.REVOKE_WAIT_UNSPECIFIED:
    case RevokeWait.REVOKE_WAIT_NONE:
      return 'NONE';
    case RevokeWait.REVOKE_WAIT_KNOWN_INSTANCES:
      return 'KNOWN_INSTANCES';
    case RevokeWait.REVOKE_WAIT_EVERYWHERE:
      return 'EVERYWHERE';
    case RevokeWait.REVOKE_WAIT_FENCED:
      return 'FENCED';
    default:
      // A wait that this version does not know must not turn into no wait.
      throw invalidField('wait', 'must be a known way of waiting');
  }
}

const STATES = {
  ENFORCED: EnforcementState.ENFORCEMENT_STATE_ENFORCED,
  PENDING: EnforcementState.ENFORCEMENT_STATE_PENDING,
  UNKNOWN: EnforcementState.ENFORCEMENT_STATE_UNKNOWN,
} as const;

function receiptMessageOf(receipt: InstanceReceipt): InstanceReceiptMessage {
  return { ...receipt, state: STATES[receipt.state] };
}

const FENCE_STATES = {
  FENCED: FenceState.FENCE_STATE_FENCED,
  PENDING: FenceState.FENCE_STATE_PENDING,
  UNKNOWN: FenceState.FENCE_STATE_UNKNOWN,
} as const;

function fenceMessageOf(receipt: FenceReceipt): FenceReceiptMessage {
  return { ...receipt, state: FENCE_STATES[receipt.state] };
}

/** The response without a revocation. */
const NOTHING_REVOKED = { sequence: 0n, enforcedEverywhereBy: undefined, instances: [], fences: [] };

function resultMessageOf(result: TargetResult): RevokeResult {
  if (!('error' in result)) return { ...result, errorReason: '', errorMessage: '' };
  const { code, message } = result.error;
  return { sequence: 0n, targetKnown: false, errorReason: code, errorMessage: message };
}

/** Empty texts are conditions that are not set. */
function filterOf(filter: SessionFilterMessage | undefined): SessionFilter {
  const { role, clientId, loggedInBeforeTime, network, userId } = filter ?? {};
  const user = textOf('filter.user_id', userId);
  const userUuid = user === undefined ? undefined : parseUuid(user);
  if (user !== undefined && userUuid === undefined) throw invalidField('filter.user_id', 'must be a UUID');
  return {
    role: textOf('filter.role', role),
    clientId: textOf('filter.client_id', clientId),
    loggedInBeforeTime,
    network: textOf('filter.network', network),
    userId: userUuid,
  };
}

function textOf(field: string, text: string | undefined): string | undefined {
  if (text?.includes('\0')) throw invalidField(field, 'must not contain NUL');
  return text === '' ? undefined : text;
}

const KINDS = {
  TOKEN: EntryKind.ENTRY_KIND_TOKEN,
  SESSION: EntryKind.ENTRY_KIND_SESSION,
  USER: EntryKind.ENTRY_KIND_USER,
  CLIENT: EntryKind.ENTRY_KIND_CLIENT,
  KEY: EntryKind.ENTRY_KIND_KEY,
  CLAIM: EntryKind.ENTRY_KIND_CLAIM,
} as const;

function revocationMessageOf(revocation: ListedRevocation): RevocationMessage {
  return { ...revocation, kind: KINDS[revocation.kind] };
}

function instanceMessageOf({ lastSyncAgeMs, leaseLeftMs, ...instance }: ListedInstance): Instance {
  return { ...instance, lastSyncAge: durationOf(lastSyncAgeMs), leaseLeft: durationOf(leaseLeftMs) };
}

function durationOf(milliseconds: number): Duration {
  const whole = Math.floor(milliseconds);
  return { seconds: BigInt(Math.floor(whole / 1000)), nanos: (whole % 1000) * 1_000_000 };
}
