/** A service of the drill's own whose transactions race with revocations: each is one row, behind a fence. */

import type { ServiceDefinition } from '@grpc/grpc-js';
import type { SchemaMetadata } from '@portcullis/guard';
import { Caller, OnStale, type Rule } from '../../proto/gen/portcullis/access/v1/access.js';

/** Its client id at auth, its audience, and the name of its fence. */
export const RACE_CLIENT = 'drill-races';

/** The scope that its callers need. */
export const RACE_SCOPE = 'inventory.read';

/** The table of what was committed. */
export const RACE_TABLE = `CREATE TABLE race_commits (batch integer NOT NULL);
CREATE INDEX ON race_commits (batch);`;

/** What one call does: loops of transactions, each of which ends when a transaction is not committed. */
export interface RaceRequest {
  readonly batch: number;
  readonly loops: number;
  /** Chooses the transactions that are slow. */
  readonly seed: number;
}

/** How a transaction ended. */
export const OUTCOMES = ['committed', 'TOKEN_REVOKED', 'REVOCATION_STATE_STALE', 'failed'] as const;

export type Outcome = (typeof OUTCOMES)[number];

/** What became of one transaction. Times are those of the machine's monotonic clock, in milliseconds. */
export interface RaceResult {
  readonly outcome: Outcome;
  /** Before BEGIN was sent. */
  readonly beganMs: number;
  /** After COMMIT or ROLLBACK was confirmed. */
  readonly endedMs: number;
}

const REQUEST_FIELDS = 3;
const RESULT_FIELDS = 3;

export function encodeRequest({ batch, loops, seed }: RaceRequest): Buffer {
  return Buffer.from(Float64Array.of(batch, loops, seed).buffer);
}

export function decodeRequest(bytes: Buffer): RaceRequest {
  const [batch = 0, loops = 0, seed = 0] = numbersIn(bytes, REQUEST_FIELDS);
  return { batch, loops, seed };
}

export function encodeResults(results: readonly RaceResult[]): Buffer {
  const numbers = results.flatMap(({ outcome, beganMs, endedMs }) => [
    OUTCOMES.indexOf(outcome),
    beganMs,
    endedMs,
  ]);
  return Buffer.from(Float64Array.from(numbers).buffer);
}

export function decodeResults(bytes: Buffer): RaceResult[] {
  const numbers = numbersIn(bytes, RESULT_FIELDS);
  return Array.from({ length: numbers.length / RESULT_FIELDS }, (_, at) => {
    const [outcome = 0, beganMs = 0, endedMs = 0] = numbers.subarray(at * RESULT_FIELDS);
    return { outcome: OUTCOMES[outcome] ?? 'failed', beganMs, endedMs };
  });
}

function numbersIn(bytes: Buffer, multiple: number): Float64Array {
  const numbers = new Float64Array(Uint8Array.from(bytes).buffer);
  if (numbers.length % multiple !== 0) throw new RangeError(`expected ${multiple} numbers each`);
  return numbers;
}

function method(name: string) {
  const identity = (bytes: Buffer): Buffer => bytes;
  return {
    path: `/drill.v1.RaceService/${name}`,
    requestStream: false,
    responseStream: false,
    requestSerialize: identity,
    requestDeserialize: identity,
    responseSerialize: identity,
    responseDeserialize: identity,
  };
}

/** The service. */
export const RACES = {
  /** Runs loops of transactions. They go on to the fence when the call is cut because its token is revoked. */
  Race: method('Race'),
  /** Ends all loops; returns the results of their transactions, and forgets them. */
  Results: method('Results'),
} satisfies ServiceDefinition;

const RULE: Rule = {
  public: false,
  scopes: [RACE_SCOPE],
  roles: [],
  caller: Caller.CALLER_UNSPECIFIED,
  maxAuthAge: undefined,
  onStale: OnStale.ON_STALE_UNSPECIFIED,
  maxRequestBytes: 0,
};

/** Its access rules, as generated code would hold them. */
export const RACE_SCHEMA: SchemaMetadata = {
  options: {
    services: {
      RaceService: {
        methods: { Race: { rule: RULE }, Results: { rule: { ...RULE, scopes: [], public: true } } },
      },
    },
  },
};
