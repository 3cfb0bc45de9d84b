/** The vectors of the specification, against the reference implementation of an instance. */

import { readFileSync } from 'node:fs';
import { expect } from 'chai';
import { Feed, type SyncTicket } from '../../../interceptors/src/revocation/feed.js';
import type { TokenClaims } from '../../../interceptors/src/token/claims.js';
import {
  type Entry,
  EntryKind,
  type PullResponse,
  SyncResponse,
} from '../../../proto/gen/portcullis/revocation/v1/revocation.js';

const FILE = new URL('../../../docs/spec/vectors/feed.json', import.meta.url);

type Moment = readonly [monotonicMs: number, wallMs: number];

interface EntryVector {
  readonly entry_id: string;
  readonly sequence: number;
  readonly kind: string;
  readonly key: string;
  readonly min_generation: number;
  readonly keep_until_ms: number;
  readonly acknowledge: boolean;
  readonly issuer: string;
  readonly cut_off_ms?: number;
}

interface ResponseVector {
  readonly epoch: string;
  readonly head: number;
  readonly entry_id_at_head: string;
  readonly entries: readonly EntryVector[];
  readonly pull: boolean;
  readonly key_set_version: string | null;
  readonly horizon_ms: number;
  readonly lease_ms: number;
}

interface TokenVector {
  readonly jti: string;
  readonly iss?: string;
  readonly sub?: string;
  readonly sid?: string;
  readonly gen?: number;
  readonly iat?: number;
  readonly kid?: string;
  readonly clients?: readonly (readonly [string, number])[];
}

interface PartVector {
  readonly ids?: { readonly kind: string; readonly keep_until_ms: number; readonly ids: readonly string[] };
  readonly entries?: readonly EntryVector[];
  readonly end?: { readonly epoch: string; readonly sequence: number; readonly entry_id: string };
}

type Step =
  | { readonly do: 'ask'; readonly ticket: string; readonly at: Moment; readonly expect?: object }
  | {
      readonly do: 'answer';
      readonly ticket: string;
      readonly response: ResponseVector;
      readonly expect: string;
    }
  | { readonly do: 'pull'; readonly parts: readonly PartVector[]; readonly expect: boolean }
  | {
      readonly do: 'broadcast';
      readonly epoch: string;
      readonly entries: readonly EntryVector[];
      readonly expect: { readonly accepted: boolean; readonly sync_due: boolean };
    }
  | { readonly do: 'lease'; readonly at: Moment; readonly expect: number }
  | { readonly do: 'horizon'; readonly expect: number }
  | { readonly do: 'revoked'; readonly token: TokenVector; readonly expect: boolean };

interface Vectors {
  readonly version: number;
  readonly vectors: readonly {
    readonly name: string;
    readonly list_entries_max?: number;
    readonly steps: readonly Step[];
  }[];
}

const bytes = (hex: string): Buffer => Buffer.from(hex, 'hex');

function kindOf(name: string): EntryKind {
  const kind = EntryKind[`ENTRY_KIND_${name}` as keyof typeof EntryKind];
  return kind ?? (99 as EntryKind);
}

function entryOf(vector: EntryVector): Entry {
  return {
    entryId: bytes(vector.entry_id),
    sequence: BigInt(vector.sequence),
    kind: kindOf(vector.kind),
    key: bytes(vector.key),
    minGeneration: BigInt(vector.min_generation),
    keepUntil: new Date(vector.keep_until_ms),
    acknowledge: vector.acknowledge,
    issuer: vector.issuer,
    cutOffTime: vector.cut_off_ms === undefined ? undefined : new Date(vector.cut_off_ms),
  };
}

function responseOf(vector: ResponseVector): SyncResponse {
  return {
    ...SyncResponse.fromPartial({}),
    epoch: bytes(vector.epoch),
    head: BigInt(vector.head),
    entryIdAtHead: bytes(vector.entry_id_at_head),
    entries: vector.entries.map(entryOf),
    pull: vector.pull,
    keySet:
      vector.key_set_version === null ? undefined : { version: bytes(vector.key_set_version), keys: [] },
    horizon: new Date(vector.horizon_ms),
    leaseLength: {
      seconds: BigInt(Math.floor(vector.lease_ms / 1000)),
      nanos: (vector.lease_ms % 1000) * 1e6,
    },
  };
}

function partOf({ ids, entries, end }: PartVector): PullResponse {
  if (ids !== undefined) {
    const value = {
      kind: kindOf(ids.kind),
      keepUntil: new Date(ids.keep_until_ms),
      ids: Buffer.concat(ids.ids.map(bytes)),
    };
    return { part: { $case: 'packed', value } };
  }
  if (entries !== undefined) return { part: { $case: 'entries', value: { entries: entries.map(entryOf) } } };
  if (end === undefined) return { part: undefined };
  const value = { epoch: bytes(end.epoch), sequence: BigInt(end.sequence), entryId: bytes(end.entry_id) };
  return { part: { $case: 'end', value } };
}

const OWN_ISSUER = 'https://auth.example';

function claimsOf(token: TokenVector): TokenClaims {
  const { iss = OWN_ISSUER, sub = 'nobody', gen } = token;
  return {
    issuer: iss,
    id: sub,
    subject: sub,
    clientId: 'direct',
    tokenId: token.jti,
    sessionId: token.sid,
    kind: 'USER',
    scopes: new Set(),
    roles: new Set(),
    audiences: [],
    actors: [],
    authTimeSeconds: undefined,
    expiresAtSeconds: 0,
    generation: gen === undefined ? undefined : BigInt(gen),
    clients: (token.clients ?? []).map(([clientId, generation]) => [clientId, BigInt(generation)]),
    ancestors: [],
    origin: undefined,
    issuedAtSeconds: token.iat ?? 0,
    keyId: token.kid ?? 'other',
    certificateThumbprint: undefined,
    isForeign: iss !== OWN_ISSUER,
  };
}

/** Runs one sequence of events. */
class Run {
  readonly #feed: Feed;
  readonly #tickets = new Map<string, SyncTicket>();

  constructor(listEntriesMax: number | undefined) {
    const nothing = (): void => undefined;
    this.#feed = new Feed({
      service: 'vectors',
      instance: Buffer.alloc(16, 1),
      listener: { entryAdded: nothing, listFilled: nothing, epochChanged: nothing },
      listEntriesMax,
    });
  }

  step(step: Step): void {
    const feed = this.#feed;
    switch (step.do) {
      case 'ask': {
        const [monotonicMs, wallMs] = step.at;
        const ticket = feed.createSyncRequest({ monotonicMs, wallMs });
        this.#tickets.set(step.ticket, ticket);
        const { epoch, applied, entryIdAtApplied, keySetVersion, seen } = ticket.request;
        const request = {
          epoch: epoch.toString('hex'),
          applied: Number(applied),
          entry_id_at_applied: entryIdAtApplied.toString('hex'),
          key_set_version: keySetVersion.toString('hex'),
          seen: seen.map((id) => id.toString('hex')),
        };
        expect(request).to.deep.include(step.expect ?? {});
        return;
      }
      case 'answer':
        expect(this.#answer(step.ticket, step.response)).to.equal(step.expect);
        return;
      case 'pull': {
        feed.beginPull();
        let isComplete = false;
        for (const part of step.parts) isComplete = feed.applyPullPart(partOf(part));
        feed.abandonPull();
        expect(isComplete).to.equal(step.expect);
        return;
      }
      case 'broadcast': {
        const { accepted, syncDue } = feed.applyBroadcast({
          epoch: bytes(step.epoch),
          entries: step.entries.map(entryOf),
        });
        expect({ accepted, sync_due: syncDue }).to.deep.equal(step.expect);
        return;
      }
      case 'lease':
        expect(feed.leaseLeftMs(...step.at)).to.equal(step.expect);
        return;
      case 'horizon':
        expect(feed.horizonMs).to.equal(step.expect);
        return;
      case 'revoked':
        expect(feed.list.revokes(claimsOf(step.token))).to.equal(step.expect);
        return;
    }
  }

  #answer(name: string, response: ResponseVector): string {
    const ticket = this.#tickets.get(name);
    if (ticket === undefined) throw new TypeError(`there is no request ${name}`);
    try {
      return this.#feed.applySyncResponse(ticket, responseOf(response), () => undefined);
    } catch {
      return 'error';
    }
  }
}

describe('the vectors of the specification', () => {
  const { version, vectors }: Vectors = JSON.parse(readFileSync(FILE, 'utf8'));

  it('are those of version 1, each with a name of its own', () => {
    expect(version).to.equal(1);
    expect(new Set(vectors.map(({ name }) => name)).size).to.equal(vectors.length);
    expect(vectors.length).to.be.above(20);
  });

  for (const { name, list_entries_max: listEntriesMax, steps } of vectors) {
    it(name, () => {
      const run = new Run(listEntriesMax);
      for (const [index, step] of steps.entries()) {
        try {
          run.step(step);
        } catch (error) {
          throw new Error(`step ${index + 1}, ${JSON.stringify(step)}`, { cause: error });
        }
      }
    });
  }
});
