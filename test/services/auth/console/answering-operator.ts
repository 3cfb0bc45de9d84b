/** An operator whose calls a test answers. */

import type { Operator } from '../../../../services/auth/console/operators.js';

/** @param answer - the bytes of the response to a call, by the path of its method */
export function answeringOperator(
  answer: (path: string, request: Buffer) => Uint8Array | Promise<Uint8Array>,
): Operator {
  return {
    username: 'olga',
    sessionId: '',
    formToken: 'token',
    canRevoke: true,
    canReadPolicy: true,
    isFresh: () => true,
    call: async (method, request) =>
      method.responseDeserialize(Buffer.from(await answer(method.path, method.requestSerialize(request)))),
  };
}
