/** RevocationService as auth serves it: what many instances receive is encoded once. */

import {
  type PullResponse,
  RevocationServiceService,
} from '../../../proto/gen/portcullis/revocation/v1/revocation.js';
import { encodeSyncResponse } from './encoded-entries.js';

const { pull, sync } = RevocationServiceService;

/** The bytes of messages that several calls send. */
const encoded = new WeakMap<PullResponse, Buffer>();

function encodeOnce(message: PullResponse): Buffer {
  const bytes = encoded.get(message) ?? pull.responseSerialize(message);
  encoded.set(message, bytes);
  return bytes;
}

/** The definition of the service. */
export const SharedRevocationService = {
  ...RevocationServiceService,
  pull: { ...pull, responseSerialize: encodeOnce },
  sync: { ...sync, responseSerialize: encodeSyncResponse },
};
