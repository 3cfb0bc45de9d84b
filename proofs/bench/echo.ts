/** The measured service: it echoes its request, so that a call costs little beside transport and guard. */

import type { ServerWritableStream, ServiceDefinition, UntypedServiceImplementation } from '@grpc/grpc-js';
import { Caller, OnStale, type Rule } from '../../proto/gen/portcullis/access/v1/access.js';

export const ECHO_AUDIENCE = 'echo';
export const UNARY_PATH = '/bench.v1.EchoService/Unary';
export const STREAM_PATH = '/bench.v1.EchoService/Stream';
/** Served by the server behind gates only: a stream that never pauses by itself. */
export const FLOOD_PATH = '/bench.v1.EchoService/Flood';

const identity = (bytes: Buffer): Buffer => bytes;
const serialization = {
  requestSerialize: identity,
  requestDeserialize: identity,
  responseSerialize: identity,
  responseDeserialize: identity,
};

export const ECHO: ServiceDefinition = {
  Unary: { path: UNARY_PATH, requestStream: false, responseStream: false, ...serialization },
  Stream: { path: STREAM_PATH, requestStream: false, responseStream: true, ...serialization },
};

const RULE: Rule = {
  public: false,
  scopes: ['echo.call'],
  roles: [],
  caller: Caller.CALLER_UNSPECIFIED,
  maxAuthAge: undefined,
  onStale: OnStale.ON_STALE_REFUSE,
  maxRequestBytes: 0,
};

/** The access rules, in the form of generated code. */
export const ECHO_SCHEMA = {
  options: { services: { EchoService: { methods: { Unary: { rule: RULE }, Stream: { rule: RULE } } } } },
};

/** Handlers without adapters, the same in every arm. */
export const ECHO_HANDLERS: UntypedServiceImplementation = {
  Unary: (call: { request: Buffer }, callback: (error: null, response: Buffer) => void) =>
    callback(null, call.request),
  Stream: (call: ServerWritableStream<Buffer, Buffer>) => {
    call.write(call.request);
    call.once('cancelled', () => call.end());
  },
};
