/** The gRPC services of auth. Methods of one service may belong to several rooms, so they are put together here. */

import type { ServiceHandlers } from '@portcullis/guard';
import { AuthServiceService, protoMetadata as authMetadata } from '../../proto/gen/auth/v1/auth_service.js';
import {
  ClientServiceService,
  protoMetadata as clientMetadata,
} from '../../proto/gen/auth/v1/client_service.js';
import {
  EvidenceServiceService,
  protoMetadata as evidenceMetadata,
} from '../../proto/gen/auth/v1/evidence_service.js';
import { KeyServiceService, protoMetadata as keyMetadata } from '../../proto/gen/auth/v1/key_service.js';
import {
  PolicyServiceService,
  protoMetadata as policyMetadata,
} from '../../proto/gen/auth/v1/policy_service.js';
import {
  SecurityServiceService,
  protoMetadata as securityMetadata,
} from '../../proto/gen/auth/v1/security_service.js';
import { UserServiceService, protoMetadata as userMetadata } from '../../proto/gen/auth/v1/user_service.js';
import { protoMetadata as revocationMetadata } from '../../proto/gen/portcullis/revocation/v1/revocation.js';
import type { GuardedService } from '../common/host/run-service.js';
import { createPasswordHandlers, createUserHandlers } from './accounts/handlers.js';
import { SharedRevocationService } from './adapters/revocation-service.js';
import { createClientHandlers } from './clients/handlers.js';
import { createEvidenceHandlers } from './evidence/handlers.js';
import { createKeyHandlers, createKeySetHandlers } from './keys/handlers.js';
import { createPolicyHandlers } from './policy/handlers.js';
import { createRevocationHandlers } from './revocation/handlers.js';
import { createSecurityHandlers } from './security/handlers.js';
import { createSessionHandlers, createUserSessionHandlers } from './sessions/handlers.js';
import { createTokenHandlers } from './tokens/handlers.js';

type DepsOf<Create extends (deps: never) => unknown> = Parameters<Create>[0];

type AuthServiceDeps = DepsOf<typeof createSessionHandlers> &
  DepsOf<typeof createPasswordHandlers> &
  DepsOf<typeof createTokenHandlers> &
  DepsOf<typeof createKeySetHandlers>;

type UserServiceDeps = DepsOf<typeof createUserHandlers> & DepsOf<typeof createUserSessionHandlers>;

/** Every gRPC service of auth with its handlers. */
export function createServices(
  deps: AuthServiceDeps &
    UserServiceDeps &
    DepsOf<typeof createClientHandlers> &
    DepsOf<typeof createEvidenceHandlers> &
    DepsOf<typeof createKeyHandlers> &
    DepsOf<typeof createPolicyHandlers> &
    DepsOf<typeof createSecurityHandlers> &
    DepsOf<typeof createRevocationHandlers>,
): readonly GuardedService[] {
  return [
    { definition: AuthServiceService, schema: authMetadata, handlers: createAuthService(deps) },
    { definition: UserServiceService, schema: userMetadata, handlers: createUserService(deps) },
    { definition: ClientServiceService, schema: clientMetadata, handlers: createClientHandlers(deps) },
    { definition: EvidenceServiceService, schema: evidenceMetadata, handlers: createEvidenceHandlers(deps) },
    { definition: KeyServiceService, schema: keyMetadata, handlers: createKeyHandlers(deps) },
    { definition: PolicyServiceService, schema: policyMetadata, handlers: createPolicyHandlers(deps) },
    { definition: SecurityServiceService, schema: securityMetadata, handlers: createSecurityHandlers(deps) },
    {
      definition: SharedRevocationService,
      schema: revocationMetadata,
      handlers: createRevocationHandlers(deps),
    },
  ];
}

/** AuthService, whose methods belong to sessions, accounts, tokens and keys. */
export function createAuthService(deps: AuthServiceDeps): ServiceHandlers<AuthServiceService> {
  return {
    ...createSessionHandlers(deps),
    ...createPasswordHandlers(deps),
    ...createTokenHandlers(deps),
    ...createKeySetHandlers(deps),
  };
}

/** UserService, whose methods belong to accounts and sessions. */
function createUserService(deps: UserServiceDeps): ServiceHandlers<UserServiceService> {
  return { ...createUserHandlers(deps), ...createUserSessionHandlers(deps) };
}
