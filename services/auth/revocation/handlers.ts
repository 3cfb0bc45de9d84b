/** The handlers of RevocationService: they translate between messages and the domain. */

import {
  invalidField,
  type Principal,
  principalOf,
  type RevocationSource,
  serverStream,
  signalOf,
  unary,
} from '@portcullis/guard';
import type { Duration } from '../../../proto/gen/google/protobuf/duration.js';
import type {
  ForeignTarget as ForeignTargetMessage,
  Instance,
  InstanceReceipt as InstanceReceiptMessage,
  RevocationServiceServer,
  RevokeRequest,
} from '../../../proto/gen/portcullis/revocation/v1/revocation.js';
import { EnforcementState, RevokeWait } from '../../../proto/gen/portcullis/revocation/v1/revocation.js';
import { OWN_AUDIENCE } from '../accounts/roles.js';
import type { InstanceReceipt, Wait } from './enforcement-watch.js';
import type { Epochs } from './epochs.js';
import type { ListedInstance } from './instance-records.js';
import type { Instances } from './instances.js';
import { checkServiceName, type ForeignTarget } from './log.js';
import type { Revocations } from './revocations.js';
import type { Target } from './revoke-targets.js';

export interface RevocationHandlersDeps {
  readonly revocations: Pick<Revocations, 'revoke'>;
  readonly instances: Pick<Instances, 'list'>;
  readonly epochs: Epochs;
  /** Answers Sync and Pull; auth's own list uses it, too. */
  readonly source: RevocationSource;
}

/** Creates the handlers of RevocationService. */
export function createRevocationHandlers(deps: RevocationHandlersDeps): RevocationServiceServer {
  const { revocations, instances, epochs, source } = deps;
  return {
    revoke: unary(async (request, call) => {
      const receipt = await revocations.revoke({
        target: targetOf(request),
        reason: request.reason,
        actor: principalOf(call).subject,
        wait: waitOf(request.wait),
        signal: signalOf(call),
      });
      return { ...receipt, instances: receipt.instances.map(receiptMessageOf) };
    }),
    sync: unary((request, call) => source.sync(inOwnName(request, principalOf(call)), signalOf(call))),
    pull: serverStream((request, call) => source.pull(inOwnName(request, principalOf(call)), signalOf(call))),
    listInstances: unary(async (request) => {
      const { instances: page, nextPageToken } = await instances.list(request);
      return { instances: page.map(instanceMessageOf), nextPageToken };
    }),
    openEpoch: unary(async (request, call) => {
      const opened = await epochs.open({ ...request, actor: principalOf(call).subject });
      return { ...opened, endedSessions: BigInt(opened.endedSessions) };
    }),
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

function targetOf({ target }: RevokeRequest): Target {
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

function foreignOf({ issuer, what }: ForeignTargetMessage): ForeignTarget {
  switch (what?.$case) {
    case 'tokenId':
      return { issuer, what: 'TOKEN', id: what.value };
    case 'sessionId':
      return { issuer, what: 'SESSION', id: what.value };
    case 'subject':
      return { issuer, what: 'USER', id: what.value };
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

function instanceMessageOf({ lastSyncAgeMs, leaseLeftMs, ...instance }: ListedInstance): Instance {
  return { ...instance, lastSyncAge: durationOf(lastSyncAgeMs), leaseLeft: durationOf(leaseLeftMs) };
}

function durationOf(milliseconds: number): Duration {
  const whole = Math.floor(milliseconds);
  return { seconds: BigInt(Math.floor(whole / 1000)), nanos: (whole % 1000) * 1_000_000 };
}
