/** The vectors of the specification, against the implementation of an instance. */

import { expect } from 'chai';
import { Feed, type FeedListener, type SyncTicket } from '../../../interceptors/src/revocation/feed.js';
import { isRevokedBy } from '../../../interceptors/src/revocation/list.js';
import type { TokenClaims } from '../../../interceptors/src/token/claims.js';
import { requestStep } from '../../../proofs/spec/feed-steps.js';
import type { EntryStep, PartStep, ResponseStep, Step, TokenStep } from '../../../proofs/spec/steps.js';
import { readVectors, type Vector } from '../../../proofs/spec/vectors.js';
import {
  type Entry,
  EntryKind,
  type PullResponse,
  SyncResponse,
} from '../../../proto/gen/portcullis/revocation/v1/revocation.js';

/** A kind that no version of the protocol knows. */
const UNKNOWN_KIND = 99 as EntryKind;

const OWN_ISSUER = 'https://auth.example';

const bytes = (hex: string): Buffer => Buffer.from(hex, 'hex');
const timeOf = (ms: number | null | undefined): Date | undefined =>
  ms === undefined || ms === null ? undefined : new Date(ms);

function kindOf(name: string): EntryKind {
  return EntryKind[`ENTRY_KIND_${name}` as keyof typeof EntryKind] ?? UNKNOWN_KIND;
}

function entryOf(step: EntryStep): Entry {
  return {
    entryId: bytes(step.entry_id),
    sequence: BigInt(step.sequence),
    kind: kindOf(step.kind),
    key: bytes(step.key),
    minGeneration: BigInt(step.min_generation),
    keepUntil: timeOf(step.keep_until_ms),
    acknowledge: step.acknowledge,
    issuer: step.issuer,
    claim: step.claim ?? '',
    cutOffTime: timeOf(step.cut_off_ms),
  };
}

function responseOf(step: ResponseStep): SyncResponse {
  return {
    ...SyncResponse.fromPartial({}),
    epoch: bytes(step.epoch),
    head: BigInt(step.head),
    entryIdAtHead: bytes(step.entry_id_at_head),
    entries: step.entries.map(entryOf),
    pull: step.pull,
    keySet: step.key_set_version === null ? undefined : { version: bytes(step.key_set_version), keys: [] },
    horizon: new Date(step.horizon_ms),
    leaseLength: {
      seconds: BigInt(Math.floor(step.lease_ms / 1000)),
      nanos: (step.lease_ms % 1000) * 1e6,
    },
    epochNumber: BigInt(step.epoch_number ?? 0),
    fenceWanted: BigInt(step.fence_wanted ?? 0),
  };
}

function partOf({ packed, entries, end }: PartStep): PullResponse {
  if (packed !== undefined) {
    const { kind, keep_until_ms, ids } = packed;
    const value = { kind: kindOf(kind), keepUntil: timeOf(keep_until_ms), ids: bytes(ids) };
    return { part: { $case: 'packed', value } };
  }
  if (entries !== undefined) return { part: { $case: 'entries', value: { entries: entries.map(entryOf) } } };
  if (end === undefined) return { part: undefined };
  const value = { epoch: bytes(end.epoch), sequence: BigInt(end.sequence), entryId: bytes(end.entry_id) };
  return { part: { $case: 'end', value } };
}

function claimsOf(token: TokenStep): TokenClaims {
  const { iss = OWN_ISSUER, sub = 'nobody', gen, origin } = token;
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
    ancestors: token.ancestors ?? [],
    origin: origin && {
      issuer: origin.iss,
      subject: origin.sub,
      tokenId: origin.jti,
      sessionId: origin.sid,
      issuedAtSeconds: origin.iat,
      revocable: valuesOf(origin.claims),
    },
    issuedAtSeconds: token.iat ?? 0,
    keyId: token.kid ?? 'other',
    certificateThumbprint: undefined,
    isForeign: iss !== OWN_ISSUER,
    revocable: valuesOf(token.claims),
  };
}

function valuesOf(claims: TokenStep['claims']): TokenClaims['revocable'] {
  return claims && new Map(Object.entries(claims));
}

/** The result of a call, or `error` when it throws. */
function outcomeOf<T>(call: () => T): T | 'error' {
  try {
    return call();
  } catch {
    return 'error';
  }
}

/** Runs one vector. */
class Run {
  readonly #feed: Feed;
  readonly #tickets = new Map<string, SyncTicket>();
  readonly #verified = new Map<string, { readonly claims: TokenClaims; valid: boolean }>();

  constructor({ listMax }: Vector) {
    const listener: FeedListener = {
      entryAdded: (entry) => this.#flag((claims) => isRevokedBy(claims, entry)),
      listFilled: (list) => this.#flag((claims) => list.revokes(claims)),
      epochChanged: () => this.#flag((claims) => !claims.isForeign),
    };
    const instance = Buffer.alloc(16, 1);
    this.#feed = new Feed({ service: 'vectors', instance, listener, listEntriesMax: listMax });
  }

  step(step: Step): void {
    const feed = this.#feed;
    switch (step.do) {
      case 'ask': {
        const [monotonicMs, wallMs] = step.at;
        const ticket = feed.createSyncRequest({ monotonicMs, wallMs });
        this.#tickets.set(step.ticket, ticket);
        expect(requestStep(ticket.request)).to.deep.include(step.expect ?? {});
        break;
      }
      case 'answer': {
        const ticket = this.#tickets.get(step.ticket);
        if (ticket === undefined) throw new TypeError(`there is no request ${step.ticket}`);
        const response = responseOf(step.response);
        expect(outcomeOf(() => feed.applySyncResponse(ticket, response, () => undefined))).to.equal(
          step.expect,
        );
        break;
      }
      case 'begin-pull':
        feed.beginPull();
        break;
      case 'part': {
        const isComplete = outcomeOf(() => feed.applyPullPart(partOf(step.part)));
        const result = isComplete === true ? 'complete' : isComplete === false ? 'incomplete' : isComplete;
        expect(result).to.equal(step.expect);
        break;
      }
      case 'abandon-pull':
        feed.abandonPull();
        break;
      case 'broadcast': {
        const broadcast = { epoch: bytes(step.epoch), entries: step.entries.map(entryOf) };
        const outcome = outcomeOf(() => feed.applyBroadcast(broadcast));
        const found =
          outcome === 'error' ? outcome : { accepted: outcome.accepted, sync_due: outcome.syncDue };
        expect(found).to.deep.equal(step.expect);
        break;
      }
      case 'lease': {
        const leftMs = feed.leaseLeftMs(...step.at);
        // After the end of the lease, the number has no meaning.
        expect(Math.max(0, leftMs)).to.equal(Math.max(0, step.expect));
        break;
      }
      case 'revoked': {
        const claims = claimsOf(step.token);
        const isRevoked = feed.list.revokes(claims);
        if (step.name !== undefined) this.#verified.set(step.name, { claims, valid: !isRevoked });
        expect(isRevoked).to.equal(step.expect);
        break;
      }
      case 'valid':
        expect(this.#verified.get(step.name)?.valid).to.equal(step.expect);
        break;
      case 'state':
        break;
    }
    if (step.state !== undefined) this.#expectState(step.state);
  }

  /** What a request would say is read from a copy of the protocol's own message; `highest` cannot be observed. */
  #expectState({ highest: _, ...expected }: NonNullable<Step['state']>): void {
    const feed = this.#feed;
    const [last] = [...this.#tickets.values()].slice(-1);
    const request = last && requestStep(feed.createSyncRequest(last.sentAt).request);
    const state = {
      ...request,
      applied: Number(feed.applied),
      hydrated: feed.hydrated,
      horizon_ms: feed.horizonMs,
      lease_ms: feed.leaseLengthMs,
      epoch_number: Number(feed.place.epochNumber),
      fence_wanted: Number(feed.fenceWanted.sequence),
    };
    expect(state).to.deep.include(expected);
  }

  #flag(isRevoked: (claims: TokenClaims) => boolean): void {
    for (const verified of this.#verified.values()) if (isRevoked(verified.claims)) verified.valid = false;
  }
}

describe('the vectors of the specification', () => {
  const vectors = readVectors();

  it('each have a name of their own', () => {
    expect(new Set(vectors.map(({ name }) => name)).size).to.equal(vectors.length);
    expect(vectors.length).to.be.above(90);
  });

  for (const vector of vectors) {
    it(vector.name, () => {
      const run = new Run(vector);
      for (const [index, step] of vector.steps.entries()) {
        try {
          run.step(step);
        } catch (error) {
          const text = JSON.stringify(step).slice(0, 500);
          throw new Error(`step ${index + 1}, ${text}: ${String(error)}`, { cause: error });
        }
      }
    });
  }
});
