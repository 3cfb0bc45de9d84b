/** RevocationService as auth serves it: a part of the list is encoded once, however many instances pull it. */

import {
  type PullResponse,
  RevocationServiceService,
} from '../../../proto/gen/portcullis/revocation/v1/revocation.js';

const { pull } = RevocationServiceService;

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
};
