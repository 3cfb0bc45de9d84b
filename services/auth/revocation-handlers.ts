/** RevocationService: revoking, and answering the instances that follow the log. */

import type { RevocationSource } from '../../interceptors/index.js';
import { invalidField, principalOf, serverStream, signalOf, unary } from '../../interceptors/index.js';
import type {
  RevocationServiceServer,
  RevokeRequest,
} from '../../proto/gen/portcullis/revocation/v1/revocation.js';
import { RevokeWait } from '../../proto/gen/portcullis/revocation/v1/revocation.js';
import type { Revocations, Target } from './revocations.js';

/** What the handlers use. */
export interface RevocationHandlersDeps {
  readonly revocations: Pick<Revocations, 'revoke'>;
  /** Answers Sync and Pull, for others just as for auth's own list. */
  readonly source: RevocationSource;
}

/** Makes the handlers of RevocationService. */
export function createRevocationHandlers(deps: RevocationHandlersDeps): RevocationServiceServer {
  const { revocations, source } = deps;
  return {
    revoke: unary((request, call) => {
      const target = targetOf(request);
      checkWait(request.wait);
      return revocations.revoke({ target, reason: request.reason, actor: principalOf(call).subject });
    }),
    sync: unary((request, call) => source.sync(request, signalOf(call))),
    pull: serverStream((request, call) => source.pull(request, signalOf(call))),
  };
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
    case undefined:
      throw invalidField('target', 'must be set');
  }
}

/** A way of waiting that this version does not know must not be taken for one that does not wait. */
function checkWait(wait: RevokeWait): void {
  if (wait !== RevokeWait.REVOKE_WAIT_UNSPECIFIED && wait !== RevokeWait.REVOKE_WAIT_NONE) {
    throw invalidField('wait', 'must be a known way of waiting');
  }
}
