/** The methods of a descriptor set that a caller has sent, with their access rules. */

import { invalidField } from '@portcullis/guard/errors';
import { MalformedMessageError, methodsOfDescriptorSet } from '@portcullis/guard/internal';
import type { DeclaredMethod } from '../policy/register-service.js';

/** Maximum size of a descriptor set, in bytes. */
export const DESCRIPTOR_SET_BYTES_MAX = 1024 * 1024;

/** Maximum number of methods in a descriptor set. */
export const METHODS_MAX = 2000;

/**
 * The methods of all services of a descriptor set, apart from those of Google, of gRPC and of the library.
 *
 * @throws ServiceError FIELD_INVALID when it is too large or not a descriptor set
 */
export function methodsOf(field: string, bytes: Uint8Array): readonly DeclaredMethod[] {
  if (bytes.length > DESCRIPTOR_SET_BYTES_MAX) {
    throw invalidField(field, `must have at most ${DESCRIPTOR_SET_BYTES_MAX} bytes, got ${bytes.length}`);
  }
  const methods = declaredMethods(field, bytes);
  if (methods.length > METHODS_MAX) throw invalidField(field, `must have at most ${METHODS_MAX} methods`);
  return methods;
}

function declaredMethods(field: string, bytes: Uint8Array): readonly DeclaredMethod[] {
  try {
    return methodsOfDescriptorSet(bytes);
  } catch (error) {
    if (!(error instanceof MalformedMessageError)) throw error;
    throw invalidField(field, 'must be a serialized google.protobuf.FileDescriptorSet');
  }
}
