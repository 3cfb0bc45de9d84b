/** The list keeps each revocation for as long as a token could match it, and no longer. */

import { randomBytes, randomUUID } from 'node:crypto';
import { expect } from 'chai';
import fc from 'fast-check';
import { IdTable } from '../../../interceptors/src/revocation/id-table.js';
import {
  isRevokedBy,
  ListFullError,
  LONG_SPANS,
  RevocationList,
  SHORT_TABLES_MAX,
  TABLE_SPAN_MS,
  uuidOf,
} from '../../../interceptors/src/revocation/list.js';
import { type Entry, EntryKind } from '../../../proto/gen/portcullis/revocation/v1/revocation.js';
import {
  bytesOf,
  claims,
  entry,
  foreignEntry,
  ISSUER,
  KEEP_UNTIL_MS,
  NOW_SECONDS,
  tokenEntry,
} from '../tokens-support.js';

const MINUTE_MS = 60_000;
const { ENTRY_KIND_TOKEN, ENTRY_KIND_SESSION, ENTRY_KIND_USER, ENTRY_KIND_CLIENT, ENTRY_KIND_KEY } =
  EntryKind;

// Few identifiers, so that entries often match tokens.
const UUIDS = Array.from({ length: 6 }, () => randomUUID() as string);
const NAMES = ['alice', 'bob', 'payment', 'key-1', ''];

const anyUuid = fc.constantFrom(...UUIDS);
const anyName = fc.constantFrom(...NAMES);
const anyGeneration = fc.bigInt(0n, 4n);
const anyIssuer = fc.constantFrom(ISSUER, 'https://other.example');
const anySeconds = fc.integer({ min: NOW_SECONDS - 2, max: NOW_SECONDS + 2 });
const anyOwnEntry: fc.Arbitrary<Entry> = fc
  .record({
    kind: fc.constantFrom(
      ENTRY_KIND_TOKEN,
      ENTRY_KIND_SESSION,
      ENTRY_KIND_USER,
      ENTRY_KIND_CLIENT,
      ENTRY_KIND_KEY,
    ),
    uuid: anyUuid,
    name: anyName,
    minGeneration: anyGeneration,
    afterMs: fc.nat(10 * MINUTE_MS),
  })
  .map(({ kind, uuid, name, minGeneration, afterMs }) =>
    entry(kind, kind === ENTRY_KIND_TOKEN || kind === ENTRY_KIND_SESSION ? bytesOf(uuid) : name, {
      minGeneration,
      keepUntil: new Date(KEEP_UNTIL_MS + afterMs),
    }),
  );
const anyForeignEntry = fc
  .tuple(
    fc.constantFrom(ENTRY_KIND_TOKEN, ENTRY_KIND_SESSION, ENTRY_KIND_USER),
    anyIssuer,
    fc.oneof(anyUuid, anyName),
    anySeconds,
    fc.nat(10 * MINUTE_MS),
  )
  .map(([kind, issuer, text, seconds, afterMs]) =>
    foreignEntry(kind, issuer, text, seconds, {
      keepUntil: new Date(KEEP_UNTIL_MS + afterMs),
    }),
  );
const anyEntry = fc.oneof({ weight: 3, arbitrary: anyOwnEntry }, { weight: 1, arbitrary: anyForeignEntry });
const anyOrigin = fc.record({
  issuer: anyIssuer,
  subject: anyName,
  sessionId: fc.option(fc.oneof(anyUuid, anyName), { nil: undefined }),
  tokenId: fc.oneof(anyUuid, anyName),
  issuedAtSeconds: anySeconds,
});
const anyClaims = fc
  .record({
    tokenId: anyUuid,
    sessionId: fc.option(anyUuid, { nil: undefined }),
    subject: anyName,
    keyId: anyName,
    generation: fc.option(anyGeneration, { nil: undefined }),
    ancestors: fc.array(anyUuid, { maxLength: 2 }),
    issuedAtSeconds: anySeconds,
    origin: fc.option(anyOrigin, { nil: undefined }),
    clients: fc.array(fc.tuple(anyName, anyGeneration), { maxLength: 2 }),
  })
  .map(claims);

/** Whether one of the entries revokes the token: the definition, without optimization. */
function isRevoked(entries: readonly Entry[], token: ReturnType<typeof claims>): boolean {
  return entries.some(({ kind, key, minGeneration, issuer, cutOffTime }) => {
    const text = Buffer.from(key).toString();
    if (issuer !== '') {
      return [token, token.origin].some((root) => {
        if (root?.issuer !== issuer) return false;
        if (kind === ENTRY_KIND_TOKEN) return root.tokenId === text;
        if (kind === ENTRY_KIND_SESSION) return root.sessionId === text;
        return root.subject === text && root.issuedAtSeconds * 1000 <= (cutOffTime?.getTime() ?? 0);
      });
    }
    switch (kind) {
      case ENTRY_KIND_TOKEN:
        return [token.tokenId, ...token.ancestors].some((id) => bytesOf(id).equals(key));
      case ENTRY_KIND_SESSION:
        return token.sessionId !== undefined && bytesOf(token.sessionId).equals(key);
      case ENTRY_KIND_USER:
        return token.generation !== undefined && token.subject === text && token.generation < minGeneration;
      case ENTRY_KIND_CLIENT:
        return token.clients.some(([id, generation]) => id === text && generation < minGeneration);
      default:
        return token.keyId === text;
    }
  });
}

function listOf(entries: Iterable<Entry>): RevocationList {
  const list = new RevocationList();
  for (const each of entries) list.add(each);
  return list;
}

describe('a revocation list', () => {
  it('revokes exactly the tokens that one of its entries revokes', () => {
    fc.assert(
      fc.property(fc.array(anyEntry, { maxLength: 12 }), anyClaims, (entries, token) => {
        expect(listOf(entries).revokes(token)).to.equal(isRevoked(entries, token));
      }),
      { numRuns: 1000 },
    );
  });

  it('agrees with the check of one entry against one token', () => {
    fc.assert(
      fc.property(anyEntry, anyClaims, (one, token) => {
        expect(isRevokedBy(token, one)).to.equal(isRevoked([one], token));
      }),
      { numRuns: 1000 },
    );
  });

  it('does not depend on order and repetition of entries', () => {
    fc.assert(
      fc.property(
        fc.array(anyEntry, { maxLength: 8 }),
        fc.array(fc.nat()),
        anyClaims,
        (entries, order, token) => {
          const shuffled = [
            ...entries,
            ...order.flatMap((at) => entries[at % entries.length] ?? []),
          ].reverse();
          expect(listOf(shuffled).revokes(token)).to.equal(listOf(entries).revokes(token));
        },
      ),
    );
  });

  it('merged with another one revokes what the entries of both revoke, for as long as they do', () => {
    fc.assert(
      fc.property(
        fc.array(anyEntry, { maxLength: 12 }),
        fc.array(anyEntry, { maxLength: 12 }),
        fc.nat(11 * MINUTE_MS),
        anyClaims,
        (own, others, afterMs, token) => {
          const [list, both] = [listOf(own), listOf([...own, ...others])];
          list.takeOver(listOf(others));
          expect(list.size).to.equal(both.size);
          expect(list.revokes(token)).to.equal(both.revokes(token));
          for (const each of [list, both]) each.dropUntil(KEEP_UNTIL_MS + afterMs);
          expect(list.size).to.equal(both.size);
          expect(list.revokes(token)).to.equal(both.revokes(token));
        },
      ),
    );
  });

  it('merges known entries however full it is, and fails when both lists are too large', () => {
    const entries = Array.from({ length: 4 }, () => tokenEntry(randomUUID()));
    const holding = (...held: Entry[]): RevocationList => {
      const list = new RevocationList(3);
      for (const each of held) list.add(each);
      return list;
    };
    const list = holding(...entries.slice(0, 2));
    list.takeOver(holding(...entries.slice(0, 3)));
    expect(list.size).to.equal(3);
    expect(() => list.takeOver(holding(...entries.slice(3)))).to.throw(ListFullError);
    // Its entries count all the same.
    for (const { key } of entries) expect(list.revokes(claims({ tokenId: uuidOf(key) }))).to.equal(true);
    expect(() => list.add(tokenEntry(randomUUID()))).to.throw(ListFullError);
  });

  it('keeps every entry until the horizon has reached its keep_until', () => {
    fc.assert(
      fc.property(
        fc.array(anyEntry, { maxLength: 12 }),
        fc.nat(11 * MINUTE_MS),
        anyClaims,
        (entries, after, token) => {
          const horizonMs = KEEP_UNTIL_MS + after;
          const kept = entries.filter(({ keepUntil }) => (keepUntil?.getTime() ?? 0) > horizonMs);
          const list = listOf(entries);
          list.dropUntil(horizonMs);
          if (isRevoked(kept, token)) expect(list.revokes(token)).to.equal(true);
        },
      ),
      { numRuns: 500 },
    );
  });

  it('drops everything once the horizon is the span of a table past it', () => {
    fc.assert(
      fc.property(fc.array(anyEntry, { maxLength: 12 }), (entries) => {
        const list = listOf(entries);
        list.dropUntil(KEEP_UNTIL_MS + 10 * MINUTE_MS + TABLE_SPAN_MS);
        expect(list.size).to.equal(0);
      }),
    );
  });

  it('uses longer tables when entries are kept for long, and drops each entry in its time', () => {
    const spans = 4 * SHORT_TABLES_MAX;
    const ids = Array.from({ length: spans }, () => randomUUID());
    const keepUntilMs = (index: number) => KEEP_UNTIL_MS + index * TABLE_SPAN_MS;
    const filled = (): RevocationList => {
      const list = new RevocationList();
      for (const [index, id] of [...ids.entries(), ...ids.entries()]) {
        list.addIds(ENTRY_KIND_TOKEN, Buffer.from(id.replaceAll('-', ''), 'hex'), keepUntilMs(index));
      }
      expect(list.size).to.equal(spans);
      return list;
    };
    for (const [index, tokenId] of ids.entries()) {
      const list = filled();
      list.dropUntil(keepUntilMs(index) - 1);
      expect(list.revokes(claims({ tokenId })), `${index}, before`).to.equal(true);
      list.dropUntil(keepUntilMs(index) + LONG_SPANS * TABLE_SPAN_MS);
      expect(list.revokes(claims({ tokenId })), `${index}, after`).to.equal(false);
    }
  });

  it('keeps the highest generation and the latest keep_until of entries with the same key', () => {
    const of = (minGeneration: bigint, keepUntilMs: number) =>
      entry(ENTRY_KIND_USER, 'alice', { minGeneration, keepUntil: new Date(keepUntilMs) });
    const list = listOf([of(5n, KEEP_UNTIL_MS), of(2n, KEEP_UNTIL_MS + MINUTE_MS)]);
    list.dropUntil(KEEP_UNTIL_MS);
    expect(list.revokes(claims({ subject: 'alice', generation: 4n }))).to.equal(true);
    expect(list.revokes(claims({ subject: 'alice', generation: 5n }))).to.equal(false);
  });

  it('revokes the descendants of a token', () => {
    const parent = randomUUID();
    const list = listOf([tokenEntry(parent)]);
    expect(list.revokes(claims({ ancestors: [randomUUID(), parent] }))).to.equal(true);
    expect(list.revokes(claims())).to.equal(false);
  });

  it('distinguishes a session from a token with the same identifier', () => {
    const id = randomUUID();
    const list = listOf([entry(ENTRY_KIND_SESSION, bytesOf(id))]);
    expect(list.revokes(claims({ tokenId: id, ancestors: [id] }))).to.equal(false);
    expect(list.revokes(claims({ sessionId: id }))).to.equal(true);
  });

  it('does not revoke a service that is named like a revoked user', () => {
    const list = listOf([entry(ENTRY_KIND_USER, 'payment', { minGeneration: 99n })]);
    expect(list.revokes(claims({ subject: 'payment', generation: undefined }))).to.equal(false);
  });

  it('revokes every token in whose chain a client is below its generation', () => {
    const list = listOf([entry(ENTRY_KIND_CLIENT, 'payment', { minGeneration: 3n })]);
    const chain = (generation: bigint) =>
      claims({
        clients: [
          ['direct', 0n],
          ['payment', generation],
        ],
      });
    expect(list.revokes(chain(2n))).to.equal(true);
    expect(list.revokes(chain(3n))).to.equal(false);
  });

  it('treats packed identifiers like as many entries', () => {
    const ids = Array.from({ length: 1000 }, () => randomUUID());
    const list = new RevocationList();
    const packed = Buffer.concat([Buffer.alloc(5), ...ids.map(bytesOf)]);
    list.addIds(ENTRY_KIND_TOKEN, packed.subarray(5), KEEP_UNTIL_MS);
    expect(list.size).to.equal(ids.length);
    for (const tokenId of ids) expect(list.revokes(claims({ tokenId }))).to.equal(true);
    expect(list.revokes(claims())).to.equal(false);
  });

  it('rejects packed identifiers of incomplete length, all of them', () => {
    for (const length of [0, 1, 15, 17, 31]) {
      const list = new RevocationList();
      const ids = Buffer.alloc(length, 1);
      expect(() => list.addIds(ENTRY_KIND_TOKEN, ids, KEEP_UNTIL_MS), `${length} bytes`).to.throw(RangeError);
      expect(list.size).to.equal(0);
    }
  });

  it('rejects packed identifiers of another kind than token and session', () => {
    for (const kind of [ENTRY_KIND_USER, ENTRY_KIND_CLIENT, ENTRY_KIND_KEY, 0 as EntryKind, 6 as EntryKind]) {
      const list = new RevocationList();
      expect(() => list.addIds(kind, Buffer.alloc(16, 1), KEEP_UNTIL_MS), `kind ${kind}`).to.throw(
        RangeError,
      );
      expect(list.size).to.equal(0);
    }
  });

  it('rejects identifiers without keep_until', () => {
    const list = new RevocationList();
    for (const keepUntilMs of [Number.NaN, Number.POSITIVE_INFINITY]) {
      expect(() => list.addIds(ENTRY_KIND_TOKEN, Buffer.alloc(16, 1), keepUntilMs)).to.throw(RangeError);
    }
    expect(list.size).to.equal(0);
  });

  it('rejects malformed and unknown entries, instead of ignoring them', () => {
    const list = new RevocationList();
    for (const kind of [0, 6, -1, 99]) {
      expect(() => list.add(entry(kind as EntryKind, 'x')), `kind ${kind}`).to.throw(
        RangeError,
        'unknown kind',
      );
    }
    expect(() => list.add(entry(ENTRY_KIND_USER, 'x', { keepUntil: undefined }))).to.throw(RangeError);
    for (const length of [0, 15, 17, 32]) {
      expect(() => list.add(entry(ENTRY_KIND_TOKEN, Buffer.alloc(length, 1)))).to.throw(RangeError);
    }
    expect(list.size).to.equal(0);
  });

  it('rejects entries of another issuer of a kind that cannot match its tokens', () => {
    const list = new RevocationList();
    const other = 'https://other.example';
    for (const kind of [ENTRY_KIND_CLIENT, ENTRY_KIND_KEY, 0 as EntryKind]) {
      expect(() => list.add(foreignEntry(kind, other, 'x')), `kind ${kind}`).to.throw(RangeError);
    }
    const endless = foreignEntry(ENTRY_KIND_USER, other, 'x', NOW_SECONDS, { cutOffTime: undefined });
    expect(() => list.add(endless)).to.throw(RangeError);
    expect(list.size).to.equal(0);
  });

  it('rounds the cut-off of another issuer up, so that tokens of its second are revoked', () => {
    const cutOffTime = new Date(NOW_SECONDS * 1000 - 999);
    const list = listOf([foreignEntry(ENTRY_KIND_USER, ISSUER, 'alice', 0, { cutOffTime })]);
    const issuedAt = (issuedAtSeconds: number) => list.revokes(claims({ subject: 'alice', issuedAtSeconds }));
    expect([issuedAt(NOW_SECONDS), issuedAt(NOW_SECONDS + 1)]).to.deep.equal([true, false]);
  });

  it('combines cut-offs by their maximum', () => {
    const cutOffs = [NOW_SECONDS, NOW_SECONDS + 9, NOW_SECONDS + 3];
    const list = listOf(cutOffs.map((at) => foreignEntry(ENTRY_KIND_USER, ISSUER, 'alice', at)));
    const issuedAt = (issuedAtSeconds: number) => list.revokes(claims({ subject: 'alice', issuedAtSeconds }));
    expect([issuedAt(NOW_SECONDS + 9), issuedAt(NOW_SECONDS + 10)]).to.deep.equal([true, false]);
  });

  it('has no session of a token without one, whatever its text is', () => {
    const list = listOf([foreignEntry(ENTRY_KIND_SESSION, ISSUER, 'undefined')]);
    const inSession = (sessionId: string | undefined) => list.revokes(claims({ sessionId }));
    expect([inSession('undefined'), inSession(undefined)]).to.deep.equal([true, false]);
  });

  it('distinguishes issuers and identifiers whose concatenations are equal', () => {
    const list = listOf([foreignEntry(ENTRY_KIND_TOKEN, 'https://a.example', 'b c')]);
    const from = (issuer: string, tokenId: string) => list.revokes(claims({ issuer, tokenId }));
    expect(from('https://a.example', 'b c')).to.equal(true);
    expect(from('https://a.example b', 'c')).to.equal(false);
  });

  describe('with one entry of each kind', () => {
    const other = 'https://other.example';
    const id = randomUUID();
    /** An entry of each kind, and claims of a token that only it revokes. */
    const kinds: [of: (over: Partial<Entry>) => Entry, token: Parameters<typeof claims>[0]][] = [
      [(over) => tokenEntry(id, over), { tokenId: id }],
      [(over) => entry(ENTRY_KIND_SESSION, bytesOf(id), over), { sessionId: id }],
      [(over) => entry(ENTRY_KIND_USER, 'alice', { minGeneration: 9n, ...over }), { subject: 'alice' }],
      [
        (over) => entry(ENTRY_KIND_CLIENT, 'payment', { minGeneration: 9n, ...over }),
        { clients: [['payment', 1n]] },
      ],
      [(over) => entry(ENTRY_KIND_KEY, 'key-9', over), { keyId: 'key-9' }],
      [
        (over) => foreignEntry(ENTRY_KIND_TOKEN, other, 't', 0, over),
        { issuer: other, isForeign: true, tokenId: 't' },
      ],
      [
        (over) => foreignEntry(ENTRY_KIND_SESSION, other, 's', 0, over),
        { issuer: other, isForeign: true, sessionId: 's' },
      ],
      [
        (over) => foreignEntry(ENTRY_KIND_USER, other, 'u', NOW_SECONDS, over),
        { issuer: other, isForeign: true, subject: 'u' },
      ],
    ];
    // The end of a span, where every kind is dropped at the same moment.
    const endMs = Math.ceil(KEEP_UNTIL_MS / TABLE_SPAN_MS) * TABLE_SPAN_MS;

    it('counts every one, and revokes the token of each by no other', () => {
      const list = listOf(kinds.map(([of]) => of({})));
      expect(list.size).to.equal(kinds.length);
      for (const [at, [, token]] of kinds.entries()) {
        const without = listOf(kinds.filter((_, index) => index !== at).map(([of]) => of({})));
        expect([list.revokes(claims(token)), without.revokes(claims(token))], `${at}`).to.deep.equal([
          true,
          false,
        ]);
      }
      expect(list.revokes(claims())).to.equal(false);
    });

    it('drops each when the horizon reaches its keep_until, and the latest counts', () => {
      const early = { keepUntil: new Date(endMs - 1) };
      const late = { keepUntil: new Date(endMs) };
      for (const [at, [of, token]] of kinds.entries()) {
        for (const entries of [
          [of(early), of(late)],
          [of(late), of(early)],
        ]) {
          const list = listOf(entries);
          list.dropUntil(endMs - 1);
          expect(list.revokes(claims(token)), `${at}, before`).to.equal(true);
          list.dropUntil(endMs);
          expect([list.revokes(claims(token)), list.size], `${at}, after`).to.deep.equal([false, 0]);
        }
      }
    });

    it('has memory for the identifiers of tokens and of sessions', () => {
      const [token, session] = kinds.map(([of]) => listOf([of({})]).bytes);
      expect(token).to.be.above(0);
      expect(session).to.equal(token);
      expect(listOf(kinds.map(([of]) => of({}))).bytes).to.equal(2 * (token ?? 0));
      expect(new RevocationList().bytes).to.equal(0);
    });
  });

  it('accepts as many packed identifiers as it has room for', () => {
    const ids = Buffer.concat(Array.from({ length: 4 }, () => bytesOf(randomUUID())));
    const list = new RevocationList(4);
    expect(() =>
      list.addIds(ENTRY_KIND_TOKEN, Buffer.concat([ids, ids.subarray(16)]), KEEP_UNTIL_MS),
    ).to.throw(ListFullError);
    expect(list.size).to.equal(0);
    list.addIds(ENTRY_KIND_TOKEN, ids, KEEP_UNTIL_MS);
    expect(list.size).to.equal(4);
  });

  it('compacts the tables to which nothing is added, while others are filled', () => {
    const list = new RevocationList();
    const ids = randomBytes(150_000 * 16);
    const first = uuidOf(ids.subarray(0, 16));
    for (let at = 0; at < ids.byteLength; at += 16) {
      const span = Math.floor((at / ids.byteLength) * 3);
      list.addIds(ENTRY_KIND_TOKEN, ids.subarray(at, at + 16), KEEP_UNTIL_MS + span * TABLE_SPAN_MS);
    }
    expect(list.size).to.equal(150_000);
    expect(list.bytes / list.size).to.be.below(18.5);
    expect(list.revokes(claims({ tokenId: first }))).to.equal(true);
    const late = randomUUID();
    list.addIds(ENTRY_KIND_TOKEN, bytesOf(late), KEEP_UNTIL_MS);
    expect(list.revokes(claims({ tokenId: late }))).to.equal(true);
    list.dropUntil(KEEP_UNTIL_MS + TABLE_SPAN_MS);
    expect(list.revokes(claims({ tokenId: first })), 'dropped in its time').to.equal(false);
  });

  it('copies the smaller of two tables when it is merged', () => {
    const { addTo } = IdTable.prototype;
    const copied: [from: number, to: number][] = [];
    IdTable.prototype.addTo = function (this: IdTable, other) {
      copied.push([this.size, other.size]);
      addTo.call(this, other);
    };
    try {
      const holding = (count: number) =>
        listOf(Array.from({ length: count }, () => tokenEntry(randomUUID())));
      holding(3).takeOver(holding(1));
      holding(1).takeOver(holding(3));
    } finally {
      IdTable.prototype.addTo = addTo;
    }
    expect(copied).to.deep.equal([
      [1, 3],
      [1, 3],
    ]);
  });

  it('still contains the first of a hundred thousand entries', () => {
    const list = new RevocationList();
    const first = randomUUID();
    list.add(tokenEntry(first));
    const ids = Buffer.alloc(100_000 * 16);
    for (let index = 0; index < 100_000; index += 1) {
      ids.writeUInt32BE(Math.imul(index + 1, 0x9e3779b1) >>> 0, index * 16);
      ids.writeUInt32BE(index + 1, index * 16 + 12);
    }
    list.addIds(ENTRY_KIND_TOKEN, ids, KEEP_UNTIL_MS);
    expect(list.size).to.equal(100_001);
    expect(list.revokes(claims({ tokenId: first }))).to.equal(true);
  });
});

describe('the text of a UUID', () => {
  it('is the same wherever its bytes are in memory', () => {
    fc.assert(
      fc.property(fc.uuid(), fc.nat(9), (uuid, offset) => {
        const memory = Buffer.concat([Buffer.alloc(offset, 0xff), bytesOf(uuid), Buffer.alloc(3)]);
        expect(uuidOf(memory.subarray(offset, offset + 16))).to.equal(uuid);
      }),
    );
  });
});
