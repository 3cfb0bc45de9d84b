/** The policy, as administrators manage it. */

import type { PolicyClient, PolicyDocument } from '../records/policy.js';
import {
  type AppliedPolicy,
  changePolicy,
  type PlainPolicy,
  type PolicyRequest,
  plainPolicy,
} from './apply-policy.js';
import { shownClients } from './client-rights.js';
import {
  type RegisteredService,
  type RegistrationDeps,
  registerService,
  type ServiceRegistration,
} from './register-service.js';

/** A request to replace the policy. */
export interface ApplyPolicyRequest extends PolicyRequest {
  readonly document: PolicyDocument;
  /** What clients may ask for; a client that is not named keeps what it has. Default: none is named. */
  readonly clients?: readonly PolicyClient[];
  /** Whether the caller may change clients. Default: no. */
  readonly mayChangeClients?: boolean;
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
    get: () =>
      deps.store.transaction(async (tx) => plainPolicy(await tx.policy.current(), await shownClients(tx))),
    apply: (request) => {
      const { document, clients = [], mayChangeClients = false } = request;
      // Without clients, the payload is that of the version before, whose requests may be repeated.
      const payload = [document.services, document.roles, ...(clients.length === 0 ? [] : [clients])];
      return changePolicy(deps, request, {
        method: 'ApplyPolicy',
        payload,
        field: 'policy',
        edit: () => document,
        clients,
        mayChangeClients,
      });
    },
    registerService: (request) => registerService(deps, request),
  };
}
