/** The handlers of PolicyService: they translate between messages and the domain. */

import { invalidField, principalOf, type ServiceHandlers } from '@portcullis/guard';
import {
  type PolicyChange as ChangeMessage,
  type ClientPolicy,
  ClientRight,
  PolicyChangeKind,
  type Policy as PolicyMessage,
  type PolicyServiceService,
  type ServicePolicy,
} from '../../../proto/gen/auth/v1/policy_service.js';
import { adminOf } from '../accounts/admin.js';
import type { PolicyClient, PolicyService } from '../records/policy.js';
import type { AppliedPolicy, PlainPolicy } from './apply-policy.js';
import type { PolicyChange } from './differences.js';
import type { PolicyAdministration } from './policy-administration.js';

export function createPolicyHandlers({
  policy,
}: {
  readonly policy: PolicyAdministration;
}): ServiceHandlers<PolicyServiceService> {
  return {
    getPolicy: async () => ({ policy: policyMessageOf(await policy.get()) }),
    applyPolicy: async (request, call) => {
      if (request.policy === undefined) throw invalidField('policy', 'must be set');
      const { etag } = request.policy;
      const { services, roles, clients } = request.policy;
      const document = { services, roles };
      // As UpdateClient requires it.
      const mayChangeClients = principalOf(call).scopes.has('auth.clients.write');
      const admin = { ...adminOf(principalOf(call), call), mayChangeClients };
      const applied = await policy.apply({ ...request, ...admin, etag, document, clients });
      const narrowedClients = applied.clients;
      return { policy: policyMessageOf(applied.policy), narrowedClients, ...resultOf(applied) };
    },
    registerService: async (request, call) => {
      const registered = await policy.registerService({ ...request, ...adminOf(principalOf(call), call) });
      const { service, policy: after } = registered;
      return { service: serviceMessageOf(service), etag: after.etag, ...resultOf(registered) };
    },
  };
}

function policyMessageOf({ services, roles, clients = [], etag, updateTime }: PlainPolicy): PolicyMessage {
  return {
    services: services.map(serviceMessageOf),
    roles: roles.map((role) => ({ ...role, scopes: [...role.scopes] })),
    clients: clients.map(clientMessageOf),
    etag,
    updateTime,
  };
}

function serviceMessageOf(service: PolicyService): ServicePolicy {
  return { ...service, clientIds: [...service.clientIds], scopes: [...service.scopes] };
}

function clientMessageOf(client: PolicyClient): ClientPolicy {
  return {
    ...client,
    audiences: [...client.audiences],
    scopes: [...client.scopes],
    exchangeAudiences: [...client.exchangeAudiences],
    exchangeScopes: [...client.exchangeScopes],
  };
}

function resultOf({ changes, users, sequence, enforcedEverywhereBy }: AppliedPolicy) {
  return { changes: changes.map(changeMessageOf), narrowedUsers: users, sequence, enforcedEverywhereBy };
}

const KINDS = {
  ADDED: PolicyChangeKind.POLICY_CHANGE_KIND_ADDED,
  REMOVED: PolicyChangeKind.POLICY_CHANGE_KIND_REMOVED,
  DESCRIBED: PolicyChangeKind.POLICY_CHANGE_KIND_DESCRIBED,
} as const;

const RIGHTS = {
  NONE: ClientRight.CLIENT_RIGHT_UNSPECIFIED,
  AUDIENCE: ClientRight.CLIENT_RIGHT_AUDIENCE,
  SCOPE: ClientRight.CLIENT_RIGHT_SCOPE,
  EXCHANGE_AUDIENCE: ClientRight.CLIENT_RIGHT_EXCHANGE_AUDIENCE,
  EXCHANGE_SCOPE: ClientRight.CLIENT_RIGHT_EXCHANGE_SCOPE,
} as const;

function changeMessageOf({
  kind,
  audience = '',
  role = '',
  scope = '',
  clientId = '',
  right,
}: PolicyChange): ChangeMessage {
  return { kind: KINDS[kind], audience, role, scope, clientId, right: RIGHTS[right ?? 'NONE'] };
}
