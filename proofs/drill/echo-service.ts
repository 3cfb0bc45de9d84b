/** A service of the drill's own with one method of each kind, for the kinds that the real services do not have. */

import type { ServiceDefinition } from '@grpc/grpc-js';
import type { SchemaMetadata } from '@portcullis/guard';
import { Caller, OnStale, type Rule } from '../../proto/gen/portcullis/access/v1/access.js';

/** Its audience, shared with inventory, so that users' tokens are valid for it. */
export const ECHO_AUDIENCE = 'inventory';

/** Its client id at auth. */
export const ECHO_CLIENT = 'drill-echo';

/** How often its server stream sends, in milliseconds. */
export const ECHO_TICK_MS = 100;

function method(name: string, requestStream: boolean, responseStream: boolean) {
  const identity = (bytes: Buffer): Buffer => bytes;
  return {
    path: `/drill.v1.EchoService/${name}`,
    requestStream,
    responseStream,
    requestSerialize: identity,
    requestDeserialize: identity,
    responseSerialize: identity,
    responseDeserialize: identity,
  };
}

/** The service. Its messages are plain text. */
export const ECHO = {
  /** Returns the request. */
  Unary: method('Unary', false, false),
  /** Receives a name and then timestamps, and returns the number of messages. */
  ClientStream: method('ClientStream', true, false),
  /** Sends the current time repeatedly. */
  ServerStream: method('ServerStream', false, true),
  /** Returns each message. */
  Bidi: method('Bidi', true, true),
  /** Returns the last timestamp that the handler of each client stream received, as JSON; then clears them. */
  Witness: method('Witness', false, false),
  /** Blocks the process's event loop for so many milliseconds. */
  Block: method('Block', false, false),
  /** Sets the process's wall clock back by so many milliseconds; forward when they are below zero. */
  SetBack: method('SetBack', false, false),
  /**
   * Sets the wall clock back and blocks the event loop for as long, which the monotonic clock does not count: like a machine
   * that sleeps. Receives duration and count, and returns begin and end, both as JSON.
   */
  Sleep: method('Sleep', false, false),
} satisfies ServiceDefinition;

const RULE: Rule = {
  public: false,
  scopes: ['inventory.read'],
  roles: [],
  caller: Caller.CALLER_UNSPECIFIED,
  maxAuthAge: undefined,
  onStale: OnStale.ON_STALE_UNSPECIFIED,
  maxRequestBytes: 0,
};
const PUBLIC_RULE: Rule = { ...RULE, scopes: [], public: true };

/** Its access rules, as generated code would hold them. */
export const ECHO_SCHEMA: SchemaMetadata = {
  options: {
    services: {
      EchoService: {
        methods: {
          Unary: { rule: RULE },
          ClientStream: { rule: RULE },
          ServerStream: { rule: RULE },
          Bidi: { rule: RULE },
          Witness: { rule: PUBLIC_RULE },
          Block: { rule: PUBLIC_RULE },
          SetBack: { rule: PUBLIC_RULE },
          Sleep: { rule: PUBLIC_RULE },
        },
      },
    },
  },
};
