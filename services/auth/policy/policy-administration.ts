/** The policy, as administrators manage it. */

import type { PolicyDocument } from '../records/policy.js';
import {
  type AppliedPolicy,
  changePolicy,
  type PlainPolicy,
  type PolicyRequest,
  plainPolicy,
} from './apply-policy.js';
import {
  type RegisteredService,
  type RegistrationDeps,
  registerService,
  type ServiceRegistration,
} from './register-service.js';

/** A request to replace the policy. */
export interface ApplyPolicyRequest extends PolicyRequest {
  readonly document: PolicyDocument;
}

/** The commands on the policy; each is documented where it is defined. */
export interface PolicyAdministration {
  /** The policy in force. */
  get(): Promise<PlainPolicy>;
  apply(request: ApplyPolicyRequest): Promise<AppliedPolicy>;
  registerService(request: ServiceRegistration): Promise<RegisteredService>;
}

export function createPolicyAdministration(deps: RegistrationDeps): PolicyAdministration {
  return {
    get: () => deps.store.transaction(async (tx) => plainPolicy(await tx.policy.current())),
    apply: (request) => {
      const { document } = request;
      const payload = [document.services, document.roles];
      return changePolicy(deps, request, {
        method: 'ApplyPolicy',
        payload,
        field: 'policy',
        edit: () => document,
      });
    },
    registerService: (request) => registerService(deps, request),
  };
}
