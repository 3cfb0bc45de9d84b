/** The client interceptor: attaches access tokens to calls, and retries a unary call once. */

import {
  InterceptingCall,
  type Interceptor,
  type Listener,
  type Metadata,
  type StatusObject,
  status,
} from '@grpc/grpc-js';
import type { GuardErrorCode } from '../errors.js';
import { detailsOf } from '../wire/status.js';
import type { TokenSource } from './token-source.js';

/** Maximum delay before a retry, in milliseconds. When the server's RetryInfo asks for more, the call is not retried. */
export const RETRY_WAIT_MAX_MS = 2000;

/** Reasons for which a new token may help. */
const RENEWABLE: ReadonlySet<string> = new Set<GuardErrorCode>(['TOKEN_EXPIRED', 'TOKEN_INVALID']);

/**
 * A grpc-js client interceptor that sends `authorization: Bearer …`.
 *
 * A unary call is retried once:
 * - with a new token, when the server rejected the first as expired or invalid (a token bound to a client certificate
 *   becomes invalid when the certificate is renewed);
 * - after the delay in RetryInfo, when the server answered UNAVAILABLE and the delay is at most {@link RETRY_WAIT_MAX_MS}.
 *
 * Streams are not retried, because messages may already have had effects.
 */
export function authenticate(source: TokenSource): Interceptor {
  return (options, nextCall) => {
    const definition = options.method_definition;
    const isUnary = !definition.requestStream && !definition.responseStream;
    let sentMetadata: Metadata;
    let sentMessage: unknown;
    let token = '';
    let second: ReturnType<typeof nextCall> | undefined;

    return new InterceptingCall(nextCall(options), {
      start: (metadata, listener, next) => {
        sentMetadata = metadata;
        let received: unknown;
        let receivedMetadata: Metadata | undefined;

        const finish = (end: StatusObject): void => {
          if (receivedMetadata !== undefined) listener.onReceiveMetadata(receivedMetadata);
          if (received !== undefined) listener.onReceiveMessage(received);
          listener.onReceiveStatus(end);
        };

        const tryAgain = (end: StatusObject): void => {
          withToken(metadataWithoutToken(sentMetadata), end, (fresh) => {
            const call = nextCall(options);
            second = call;
            received = undefined;
            receivedMetadata = undefined;
            call.start(fresh, {
              onReceiveMetadata: (value) => {
                receivedMetadata = value;
              },
              onReceiveMessage: (value: unknown) => {
                received = value;
              },
              onReceiveStatus: finish,
            });
            call.sendMessage(sentMessage);
            call.halfClose();
          });
        };

        const withToken = (
          bare: Metadata,
          end: StatusObject | undefined,
          use: (authenticated: Metadata) => void,
        ): void => {
          source.get().then(
            (value) => {
              token = value;
              bare.set('authorization', `Bearer ${value}`);
              use(bare);
            },
            (error: unknown) => listener.onReceiveStatus(end ?? noToken(error, metadata)),
          );
        };

        const watching: Listener = {
          onReceiveMetadata: (value, pass) => {
            if (isUnary) receivedMetadata = value;
            else pass(value);
          },
          onReceiveMessage: (value: unknown, pass) => {
            if (isUnary) received = value;
            else pass(value);
          },
          onReceiveStatus: (end, pass) => {
            const { reason, retryAfterMs } = detailsOf(end.metadata);
            if (end.code === status.UNAUTHENTICATED) source.reject(token);
            if (!isUnary) return pass(end);
            if (end.code === status.UNAUTHENTICATED && RENEWABLE.has(reason)) return tryAgain(end);
            const waitMs = retryAfterMs ?? Number.POSITIVE_INFINITY;
            if (end.code === status.UNAVAILABLE && waitMs <= RETRY_WAIT_MAX_MS) {
              setTimeout(() => tryAgain(end), waitMs);
              return;
            }
            finish(end);
          },
        };

        withToken(metadata.clone(), undefined, (authenticated) => next(authenticated, watching));
      },
      sendMessage: (message: unknown, next) => {
        sentMessage = message;
        next(message);
      },
      cancel: (next) => {
        second?.cancelWithStatus(status.CANCELLED, 'cancelled by the caller');
        next();
      },
    });
  };
}

function metadataWithoutToken(metadata: Metadata): Metadata {
  const bare = metadata.clone();
  bare.remove('authorization');
  return bare;
}

/** The status of a call for which no token could be fetched: the issuer's status, if it sent one. */
function noToken(error: unknown, metadata: Metadata): StatusObject {
  const { code, details, metadata: trailers } = error as Partial<StatusObject>;
  const empty = metadata.clone();
  for (const key of Object.keys(empty.getMap())) empty.remove(key);
  return {
    code: typeof code === 'number' ? code : status.UNAUTHENTICATED,
    details: typeof details === 'string' ? details : 'no access token could be fetched',
    metadata: trailers ?? empty,
  };
}
