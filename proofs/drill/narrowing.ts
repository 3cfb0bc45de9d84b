/** A role that loses a scope: the earlier tokens of its users are revoked, and must be refused within the bound. */

import { randomUUID } from 'node:crypto';
import { errorOf } from '@portcullis/guard/client';
import type { ApplyPolicyRequest, PolicyServiceClient } from '../../proto/gen/auth/v1/policy_service.js';
import type { UserServiceClient } from '../../proto/gen/auth/v1/user_service.js';
import { ask } from '../../scripts/system/calls.js';

/** A role of the drill alone. */
const ROLE = 'drill';

/** What the role gives for good: what else a customer needs. */
const KEPT_SCOPES = ['auth.self', 'inventory.reserve', 'payment.read', 'payment.pay'];

/** The scope that the role loses: the streams of the drill demand it, and its user has no other role. */
const SCOPE = 'inventory.read';

/** Maximum time for a call, in milliseconds: applying a policy waits until the last batch of users is committed. */
const CALL_MS_MAX = 5_000;

/** The clients that a narrowing needs. */
export interface PolicyClients {
  readonly policy: PolicyServiceClient;
  readonly users: UserServiceClient;
}

/** Gives the role its scope, and the user this role alone. */
export async function grantRole(
  { policy, users }: PolicyClients,
  { token, userId }: { readonly token: string; readonly userId: string },
): Promise<void> {
  const { policy: before } = await ask(policy.getPolicy.bind(policy), {}, { token });
  if (before === undefined) throw new TypeError('auth has sent no policy');
  const roles = before.roles.filter(({ role }) => role !== ROLE);
  const granting = [...roles, { role: ROLE, description: 'Of the drill', scopes: [...KEPT_SCOPES, SCOPE] }];
  const request = {
    policy: { ...before, roles: granting },
    dryRun: false,
    requestId: randomUUID(),
    reason: 'the drill',
  };
  const options = { token, timeoutMs: CALL_MS_MAX };
  await ask(policy.applyPolicy.bind(policy), request, options);
  const roleRequest = { userId, roles: [ROLE], requestId: randomUUID() };
  await ask(users.setUserRoles.bind(users), roleRequest, options);
}

/**
 * Takes the scope from the role. It may be repeated: only the first one that arrives changes anything, and each waits until
 * the tokens are revoked.
 */
export function createNarrowing({ policy }: PolicyClients): (token: string) => Promise<void> {
  let request: ApplyPolicyRequest | undefined;
  return async (token) => {
    request ??= await narrowingRequest(policy, token);
    try {
      await ask(policy.applyPolicy.bind(policy), request, { token, timeoutMs: CALL_MS_MAX });
    } catch (error) {
      // A restored database has forgotten the request, and has another policy.
      if (errorOf(error).reason === 'ETAG_MISMATCH') request = undefined;
      throw error;
    }
  };
}

async function narrowingRequest(policy: PolicyServiceClient, token: string): Promise<ApplyPolicyRequest> {
  const { policy: before } = await ask(policy.getPolicy.bind(policy), {}, { token });
  if (before === undefined) throw new TypeError('auth has sent no policy');
  const roles = before.roles.map((role) => (role.role === ROLE ? { ...role, scopes: KEPT_SCOPES } : role));
  return { policy: { ...before, roles }, dryRun: false, requestId: randomUUID(), reason: 'the drill' };
}
