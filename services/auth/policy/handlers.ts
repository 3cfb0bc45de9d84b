/** The handlers of PolicyService: they translate between messages and the domain. */

import { invalidField, principalOf, unary } from '@portcullis/guard';
import {
  type PolicyChange as ChangeMessage,
  PolicyChangeKind,
  type Policy as PolicyMessage,
  type PolicyServiceServer,
  type ServicePolicy,
} from '../../../proto/gen/auth/v1/policy_service.js';
import { adminOf } from '../accounts/admin.js';
import type { PolicyDocument, PolicyService } from '../records/policy.js';
import type { AppliedPolicy, PlainPolicy } from './apply-policy.js';
import type { PolicyChange } from './differences.js';
import type { PolicyAdministration } from './policy-administration.js';

export function createPolicyHandlers({
  policy,
}: {
  readonly policy: PolicyAdministration;
}): PolicyServiceServer {
  return {
    getPolicy: unary(async () => ({ policy: policyMessageOf(await policy.get()) })),
    applyPolicy: unary(async (request, call) => {
      if (request.policy === undefined) throw invalidField('policy', 'must be set');
      const { etag } = request.policy;
      const document = documentOf(request.policy);
      const applied = await policy.apply({ ...request, ...adminOf(principalOf(call), call), etag, document });
      return { policy: policyMessageOf(applied.policy), ...resultOf(applied) };
    }),
    registerService: unary(async (request, call) => {
      const registered = await policy.registerService({ ...request, ...adminOf(principalOf(call), call) });
      const { service, policy: after } = registered;
      return { service: serviceMessageOf(service), etag: after.etag, ...resultOf(registered) };
    }),
  };
}

function documentOf({ services, roles }: PolicyMessage): PolicyDocument {
  return { services, roles };
}

function policyMessageOf({ services, roles, etag, updateTime }: PlainPolicy): PolicyMessage {
  return {
    services: services.map(serviceMessageOf),
    roles: roles.map((role) => ({ ...role, scopes: [...role.scopes] })),
    etag,
    updateTime,
  };
}

function serviceMessageOf(service: PolicyService): ServicePolicy {
  return { ...service, clientIds: [...service.clientIds], scopes: [...service.scopes] };
}

function resultOf({ changes, users, sequence, enforcedEverywhereBy }: AppliedPolicy) {
  return { changes: changes.map(changeMessageOf), narrowedUsers: users, sequence, enforcedEverywhereBy };
}

const KINDS = {
  ADDED: PolicyChangeKind.POLICY_CHANGE_KIND_ADDED,
  REMOVED: PolicyChangeKind.POLICY_CHANGE_KIND_REMOVED,
  DESCRIBED: PolicyChangeKind.POLICY_CHANGE_KIND_DESCRIBED,
} as const;

function changeMessageOf({
  kind,
  audience = '',
  role = '',
  scope = '',
  clientId = '',
}: PolicyChange): ChangeMessage {
  return { kind: KINDS[kind], audience, role, scope, clientId };
}
