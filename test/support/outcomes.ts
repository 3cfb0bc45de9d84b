/** How promises, calls and streams ended, in a form that tests can compare. */

import { type ClientReadableStream, status } from '@grpc/grpc-js';
import { errorOf, type ReceivedError } from '@portcullis/guard/client';
import { ServiceError } from '@portcullis/guard/errors';

/** Returns the error that a promise is rejected with; a promise that is fulfilled fails the test. */
export async function rejectionOf(promise: Promise<unknown>): Promise<Error> {
  const fulfilled = Symbol('fulfilled');
  const outcome = await promise.then(
    () => fulfilled,
    (error: unknown) => error,
  );
  if (outcome === fulfilled) throw new Error('the promise was fulfilled, and should have been rejected');
  return outcome instanceof Error ? outcome : new Error(String(outcome));
}

/** Returns the ServiceError that domain code fails with; success and any other error fail the test. */
export async function serviceErrorOf(promise: Promise<unknown>): Promise<ServiceError> {
  const error = await rejectionOf(promise);
  if (error instanceof ServiceError) return error;
  throw new Error('expected a ServiceError', { cause: error });
}

/** Returns the code of the ServiceError that domain code fails with. */
export async function codeOf(promise: Promise<unknown>): Promise<string> {
  return (await serviceErrorOf(promise)).code;
}

/** Returns `OK`, or the code of the ServiceError that domain code fails with. */
export async function codeOrOk(promise: Promise<unknown>): Promise<string> {
  try {
    await promise;
    return 'OK';
  } catch (error) {
    if (error instanceof ServiceError) return error.code;
    throw error;
  }
}

/** Returns the names of the fields that FIELD_INVALID names, sorted; any other error fails the test. */
export async function violatedFieldsOf(promise: Promise<unknown>): Promise<string[]> {
  const { code, violations } = await serviceErrorOf(promise);
  if (code !== 'FIELD_INVALID') throw new Error(`expected FIELD_INVALID, got ${code}`);
  return violations.map(({ field }) => field).sort();
}

/** Returns the error that a client received; a call that succeeds fails the test. */
export async function refusalOf(answer: Promise<unknown>): Promise<ReceivedError> {
  return errorOf(await rejectionOf(answer));
}

/** Returns how a call ended: `OK`, or status and reason such as `UNAUTHENTICATED TOKEN_REVOKED`. */
export async function outcomeOf(answer: Promise<unknown>): Promise<string> {
  try {
    await answer;
    return 'OK';
  } catch (error) {
    const { code, reason } = errorOf(error);
    return `${status[code]} ${reason}`.trim();
  }
}

/** Reads a stream to its end and returns how it ended, as {@link outcomeOf} does. */
export async function endOf(stream: ClientReadableStream<unknown>): Promise<string> {
  const ended = new Promise<void>((resolve, reject) => {
    stream.on('data', () => undefined);
    stream.on('error', reject);
    stream.on('end', () => setImmediate(resolve));
  });
  return await outcomeOf(ended);
}
