/** The handlers of KeyService: they translate between messages and the domain. */

import { invalidField, principalOf, type ServiceHandlers } from '@portcullis/guard';
import type { AuthServiceService } from '../../../proto/gen/auth/v1/auth_service.js';
import {
  type Key as KeyMessage,
  type KeyServiceService,
  KeyPurpose as PurposeMessage,
  KeyState as StateMessage,
} from '../../../proto/gen/auth/v1/key_service.js';
import { adminOf } from '../accounts/admin.js';
import type { KeyPurpose, KeyRecord } from '../records/keys.js';
import type { KeyLife } from './key-life.js';
import type { PublicKeys } from './published-keys.js';

/** Creates the handlers of KeyService. */
export function createKeyHandlers({
  keyLife,
}: {
  readonly keyLife: KeyLife;
}): ServiceHandlers<KeyServiceService> {
  return {
    listKeys: async (request) => {
      const { keys, nextPageToken } = await keyLife.list(request);
      return { keys: keys.map(keyMessageOf), nextPageToken };
    },
    rotateKey: async (request, call) => {
      if (request.requestId === '') throw invalidField('request_id', 'must be set');
      const { signingKey, formerKey, revocation } = await keyLife.rotate({
        ...request,
        purpose: purposeOf(request.purpose),
        ...adminOf(principalOf(call), call),
      });
      return {
        signingKey: keyMessageOf(signingKey),
        formerKey: keyMessageOf(formerKey),
        sequence: revocation?.sequence ?? 0n,
        enforcedEverywhereBy: revocation?.enforcedEverywhereBy,
      };
    },
  };
}

/** The method of AuthService that publishes the key set. */
export function createKeySetHandlers({
  publicKeys,
}: {
  readonly publicKeys: PublicKeys;
}): Pick<ServiceHandlers<AuthServiceService>, 'getKeys'> {
  return {
    getKeys: async () => {
      const { epoch, keySet } = await publicKeys.read();
      return { epoch, keySet: { version: keySet.version, keys: [...keySet.keys] } };
    },
  };
}

const PURPOSES = {
  token: PurposeMessage.KEY_PURPOSE_TOKEN,
  broadcast: PurposeMessage.KEY_PURPOSE_BROADCAST,
  receipt: PurposeMessage.KEY_PURPOSE_RECEIPT,
} as const;

const STATES = {
  next: StateMessage.KEY_STATE_NEXT,
  signing: StateMessage.KEY_STATE_SIGNING,
  'verify-only': StateMessage.KEY_STATE_VERIFY_ONLY,
  retired: StateMessage.KEY_STATE_RETIRED,
} as const;

function purposeOf(purpose: PurposeMessage): KeyPurpose {
  switch (purpose) {
    case PurposeMessage.KEY_PURPOSE_UNSPECIFIED:
    case PurposeMessage.KEY_PURPOSE_TOKEN:
      return 'token';
    case PurposeMessage.KEY_PURPOSE_BROADCAST:
      return 'broadcast';
    case PurposeMessage.KEY_PURPOSE_RECEIPT:
      return 'receipt';
    default:
      throw invalidField('purpose', 'must be a known purpose');
  }
}

function keyMessageOf({ purpose, state, ...key }: KeyRecord): KeyMessage {
  return { ...key, purpose: PURPOSES[purpose], state: STATES[state] };
}
