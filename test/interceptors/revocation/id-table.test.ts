/** The table of identifiers behaves like a set, whatever is added. */

import { randomBytes } from 'node:crypto';
import { expect } from 'chai';
import fc from 'fast-check';
import { idHash } from '../../../interceptors/src/revocation/id-leaf.js';
import { IdTable } from '../../../interceptors/src/revocation/id-table.js';

/** How a table grows from one leaf: so many identifiers, and the slots that they need. */
const GROWTH: readonly (readonly [size: number, slots: number])[] = [
  [1, 16],
  [15, 19],
  [17, 22],
  [20, 26],
  [23, 30],
  [27, 35],
  [31, 40],
  [36, 47],
  [42, 55],
  [49, 64],
  [57, 75],
  [66, 87],
  [77, 102],
  [90, 119],
  [105, 256],
  [225, 384],
  [337, 512],
  [449, 640],
  [561, 768],
  [673, 896],
  [785, 1152],
  [1009, 1408],
  [1233, 1664],
  [1457, 2048],
  [1793, 2432],
  [2129, 2944],
  [2577, 3456],
  [3025, 4096],
];

type Id = readonly [number, number, number, number];

const anyId: fc.Arbitrary<Id> = fc
  .tuple(
    ...([0, 1, 2, 3].map(() => fc.integer({ min: 0, max: 0xffffffff })) as [
      fc.Arbitrary<number>,
      fc.Arbitrary<number>,
      fc.Arbitrary<number>,
      fc.Arbitrary<number>,
    ]),
  )
  .filter((id) => id.some((word) => word !== 0));

/** Identifiers that all belong in a few neighbouring slots, including the last ones of the table. */
const crowdedId: fc.Arbitrary<Id> = fc
  .tuple(
    fc.constantFrom(0, 1, 0x7fffffff, 0xffffffff, 0xfffffffe),
    fc.nat(5),
    fc.constantFrom(0, 1, 0xffffffff),
    fc.nat(5),
  )
  .filter((id) => id.some((word) => word !== 0));

function tableOf(ids: readonly Id[]): IdTable {
  const table = new IdTable();
  for (const id of ids) table.add(...id);
  return table;
}

/** @returns the number of steps that it took */
function compactAll(table: IdTable): number {
  let steps = 0;
  // The first call only notes that nothing is being added.
  table.compact();
  while (table.compact()) steps += 1;
  return steps;
}

function manyIds(count: number, first = 1): Id[] {
  return Array.from({ length: count }, (_, at) => [
    first + at,
    mixed(first + at),
    7,
    Math.imul(first + at, 0x9e3779b1) >>> 0,
  ]);
}

/**
 * Scatters a number, as the random part of a real identifier does: with words that count upwards, the linear hash
 * with unlucky factors would put a hundred identifiers into one leaf. (The finalizer of MurmurHash3.)
 */
function mixed(number: number): number {
  let word = number;
  word = Math.imul(word ^ (word >>> 16), 0x85ebca6b);
  word = Math.imul(word ^ (word >>> 13), 0xc2b2ae35);
  return (word ^ (word >>> 16)) >>> 0;
}

/** Identifiers whose hash is zero. */
function collidingIds(count: number): Id[] {
  // The last word makes the hash zero. Its factor is odd, so it has an inverse.
  const factor = idHash(0, 0, 0, 1);
  let inverse = factor;
  for (let bits = 3; bits < 32; bits *= 2) inverse = Math.imul(inverse, 2 - Math.imul(factor, inverse));
  return Array.from({ length: count }, (_, index): Id => {
    const last = Math.imul(-idHash(index, 1, 0, 0), inverse) >>> 0;
    return [index, 1, 0, last];
  });
}

function holdsLikeASet(ids: readonly Id[], absent: readonly Id[]): void {
  const table = new IdTable();
  const model = new Set<string>();
  for (const id of ids) {
    expect(table.has(...id)).to.equal(model.has(id.join()));
    expect(table.add(...id)).to.equal(!model.has(id.join()));
    model.add(id.join());
    expect(table.size).to.equal(model.size);
  }
  for (const id of [...ids, ...absent]) expect(table.has(...id), id.join()).to.equal(model.has(id.join()));
}

describe('an id table', () => {
  it('answers like a set of the same identifiers', () => {
    fc.assert(fc.property(fc.array(anyId, { maxLength: 300 }), fc.array(anyId), holdsLikeASet));
  });

  it('answers like a set when everything collides', () => {
    fc.assert(
      fc.property(
        fc.array(crowdedId, { maxLength: 200 }),
        fc.array(crowdedId, { maxLength: 20 }),
        holdsLikeASet,
      ),
    );
  });

  it('answers like a set, whatever number of identifiers was expected', () => {
    const ids = Array.from({ length: 9000 }, (_, index): Id => [index, 7, 7, index * 65_537]);
    for (const expected of [0, 1, 100, 9000, 100_000]) {
      const table = new IdTable(expected);
      expect(table.has(1, 2, 3, 4)).to.equal(false);
      for (const id of ids) expect(table.add(...id)).to.equal(true);
      for (const id of ids) expect(table.add(...id)).to.equal(false);
      expect(table.size).to.equal(ids.length);
      expect(ids.every((id) => table.has(...id))).to.equal(true);
      expect(table.has(1, 2, 3, 4)).to.equal(false);
    }
  });

  it('does not grow when as many identifiers are added as were expected', () => {
    const count = 100_000;
    const table = new IdTable(count);
    for (let id = 0; id < count; id += 1) {
      const [a = 0, b = 0, c = 0, d = 0] = new Uint32Array(randomBytes(16).buffer.slice(0, 16));
      table.add(a, b, c, d);
    }
    expect(table.bytes / table.size).to.be.below(21);
  });

  it('begins empty in the memory of a table that was dropped', () => {
    const ids = Array.from({ length: 5000 }, (_, index): Id => [index + 1, index, 0, index * 2_654_435]);
    const dropped = tableOf(ids);
    dropped.release();
    const table = new IdTable(ids.length);
    for (const id of ids.slice(0, 100)) table.add(...id);
    expect(ids.filter((id) => table.has(...id))).to.have.length(100);
    expect(table.size).to.equal(100);
  });

  it('distinguishes identifiers that differ in one bit', () => {
    const id: Id = [0x12345678, 0x9abcdef0, 0x0fedcba9, 0x87654321];
    const table = new IdTable();
    table.add(...id);
    for (let bit = 0; bit < 128; bit += 1) {
      const other = id.map((word, index) => (index === bit >> 5 ? (word ^ (1 << (bit & 31))) >>> 0 : word));
      const [a = 0, b = 0, c = 0, d = 0] = other;
      expect(table.has(a, b, c, d), `bit ${bit}`).to.equal(false);
    }
  });

  it('distinguishes them when it is compact, too', () => {
    const ids = manyIds(225);
    const table = tableOf(ids);
    expect(compactAll(table)).to.equal(1);
    for (const id of ids) {
      for (let bit = 0; bit < 128; bit += 1) {
        const other = [...id];
        other[bit >> 5] = ((other[bit >> 5] ?? 0) ^ (1 << (bit & 31))) >>> 0;
        const [a = 0, b = 0, c = 0, d = 0] = other;
        if (table.has(a, b, c, d)) expect(ids.map(String), `${id} bit ${bit}`).to.include(String(other));
      }
    }
  });

  it('keeps its identifiers while it grows, at every size', () => {
    const table = new IdTable();
    const ids = Array.from(
      { length: 5000 },
      (_, index): Id => [Math.imul(index + 1, 0x9e3779b1) >>> 0, index, 7, index],
    );
    for (const [index, id] of ids.entries()) {
      expect(table.add(...id)).to.equal(true);
      const first = ids[0] ?? id;
      expect(table.has(...first) && table.has(...id), `after ${index + 1}`).to.equal(true);
    }
    expect(table.size).to.equal(ids.length);
    for (const id of ids) expect(table.has(...id)).to.equal(true);
  });

  it('always has a free slot, so that a search for what is absent ends', () => {
    const table = new IdTable();
    for (let count = 1; count <= 1000; count += 1) {
      table.add(count, count, 0, 0);
      expect(table.bytes / 16).to.be.above(table.size);
      expect(table.has(count, count, 1, 1)).to.equal(false);
    }
  });

  it('uses at most 26 bytes per identifier, however many there are', () => {
    const table = new IdTable();
    for (let index = 1; index <= 50_000; index += 1) {
      table.add(Math.imul(index, 0x9e3779b1) >>> 0, index, 0, index);
      if (index >= 1000 && index % 97 === 0) expect(table.bytes / table.size, `${index}`).to.be.at.most(26);
    }
  });

  it('never grows by more than 36 KiB at once, so that growing does not pause the process', () => {
    const table = new IdTable();
    let before = table.bytes;
    for (let index = 1; index <= 50_000; index += 1) {
      table.add(Math.imul(index, 0x9e3779b1) >>> 0, index, 0, index);
      if (table.bytes - before > 36 * 1024) expect.fail(`${table.bytes - before} bytes more after ${index}`);
      before = table.bytes;
    }
  });

  it('takes no memory before the first identifier, and then grows when seven of eight slots are taken', () => {
    const table = new IdTable();
    expect(table.bytes).to.equal(8);
    const grown: (readonly [size: number, slots: number])[] = [];
    let { bytes } = table;
    for (const id of manyIds(3584)) {
      table.add(...id);
      if (table.bytes !== bytes) grown.push([table.size, (table.bytes - 8) / 16]);
      ({ bytes } = table);
    }
    // Three of four slots are taken after it has grown, in steps of 128 slots once there are as many.
    expect(grown).to.deep.equal(GROWTH);
    expect(table.add(...(manyIds(1)[0] ?? [0, 0, 0, 0]))).to.equal(false);
    expect(table.bytes, 'a known identifier needs no room').to.equal(bytes);
  });

  it('splits a leaf of 4096 slots when it is full, and not before', () => {
    for (const [count, leaves] of [
      [3584, 1],
      [3585, 2],
    ] as const) {
      const table = tableOf(manyIds(count));
      if (leaves === 1) expect(table.bytes).to.equal(8 + 4096 * 16);
      expect(compactAll(table), `leaves of ${count}`).to.equal(leaves);
      expect(table.bytes / count, `memory of ${count}`).to.be.below(17.5);
      expect(manyIds(count).every((id) => table.has(...id))).to.equal(true);
    }
  });

  it('has as many leaves, of as many slots, as the expected number needs', () => {
    for (const [expected, leaves, slots] of [
      [1, 1, 16],
      [100, 1, 120],
      [107, 1, 128],
      [108, 1, 256],
      [1000, 1, 1280],
      [3440, 1, 4096],
      [3441, 2, 2176],
      [100_000, 32, 3840],
      [1e9, 65_536, 0],
    ] as const) {
      const table = new IdTable(expected);
      expect(table.bytes, `${expected} expected`).to.equal(leaves * 8);
      if (slots === 0) continue;
      table.add(1, 2, 3, 4);
      expect(table.bytes - leaves * 8, `${expected} expected`).to.equal(slots * 16);
    }
  });

  it('takes, when compact, a word for each twelve identifiers and four for each, in steps of a KiB', () => {
    for (const [count, kib] of [
      [62, 1],
      [250, 4],
      [251, 5],
      [1000, 16],
      [3000, 48],
    ] as const) {
      const table = tableOf(manyIds(count));
      compactAll(table);
      expect(table.bytes, `${count}`).to.equal(8 + kib * 1024);
    }
  });

  it('does not contain identifiers that were never added', () => {
    expect(new IdTable().has(1, 2, 3, 4)).to.equal(false);
    expect(new IdTable().size).to.equal(0);
  });

  it('hashes each word with a random odd factor of its own, so that an attacker cannot choose collisions', () => {
    const factors = [idHash(1, 0, 0, 0), idHash(0, 1, 0, 0), idHash(0, 0, 1, 0), idHash(0, 0, 0, 1)];
    expect(new Set([1, ...factors]).size).to.equal(5);
    for (const factor of factors) expect(factor % 2).to.equal(1);
    const ids: Id[] = [
      [1, 1, 0, 0],
      [0, 1, 1, 0],
      [0, 0, 1, 1],
    ];
    for (const [at, id] of ids.entries()) {
      expect(idHash(...id)).to.equal(((factors[at] ?? 0) + (factors[at + 1] ?? 0)) % 2 ** 32);
    }
  });

  it('adds all its identifiers to another table, and nothing else', () => {
    const anyIds = fc.array(fc.oneof(anyId, crowdedId), { maxLength: 60 });
    fc.assert(
      fc.property(anyIds, anyIds, (ids, others) => {
        const [table, other] = [tableOf(ids), tableOf(others)];
        table.addTo(other);
        const both = [...ids, ...others];
        expect(other.size).to.equal(new Set(both.map(String)).size);
        for (const id of both) expect(other.has(...id)).to.equal(true);
        expect(table.size).to.equal(new Set(ids.map(String)).size);
      }),
    );
    const [large, empty] = [
      tableOf(Array.from({ length: 10_000 }, (_, at): Id => [at, 1, at, 1])),
      new IdTable(),
    ];
    large.addTo(empty);
    expect(empty.size).to.equal(10_000);
  });

  it('keeps identifiers of the same hash, which no split separates', () => {
    const ids = collidingIds(4000);
    const table = new IdTable();
    for (const id of ids) {
      expect(idHash(...id)).to.equal(0);
      expect(table.add(...id)).to.equal(true);
    }
    expect(table.size).to.equal(ids.length);
    for (const id of ids.filter((_, index) => index % 100 === 0)) expect(table.has(...id)).to.equal(true);
    expect(table.bytes).to.be.below(1024 * 1024);
  });

  it('answers like a set, whenever it is compacted', () => {
    const anyStep = fc.oneof(
      { weight: 9, arbitrary: fc.oneof(anyId, crowdedId) },
      { weight: 1, arbitrary: fc.constant('compact' as const) },
    );
    const steps = fc.tuple(fc.nat(400), fc.array(anyStep, { maxLength: 400 }));
    fc.assert(
      fc.property(steps, fc.array(crowdedId, { maxLength: 20 }), ([before, all], absent) => {
        const ids = manyIds(before);
        const table = tableOf(ids);
        const model = new Set(ids.map(String));
        compactAll(table);
        for (const step of all) {
          if (step === 'compact') {
            compactAll(table);
            continue;
          }
          expect(table.has(...step)).to.equal(model.has(step.join()));
          expect(table.add(...step)).to.equal(!model.has(step.join()));
          model.add(step.join());
          ids.push(step);
          expect(table.size).to.equal(model.size);
        }
        for (const id of [...ids, ...absent])
          expect(table.has(...id), id.join()).to.equal(model.has(id.join()));
      }),
    );
  });

  it('uses at most 17 bytes per identifier when it is compact', () => {
    for (const expected of [0, 100_000]) {
      const ids = manyIds(100_000);
      const table = new IdTable(expected);
      for (const id of ids) table.add(...id);
      compactAll(table);
      expect(table.bytes / table.size).to.be.below(17);
      expect(ids.every((id) => table.has(...id))).to.equal(true);
    }
  });

  it('compacts one leaf at a time, so that compacting does not pause the process', () => {
    const table = tableOf(manyIds(100_000));
    table.compact();
    let before = table.bytes;
    let steps = 0;
    while (table.compact()) {
      expect(before - table.bytes).to.be.within(1, 36 * 1024);
      before = table.bytes;
      steps += 1;
    }
    expect(steps).to.be.above(20);
  });

  it('is not compacted while identifiers are added', () => {
    const table = tableOf(manyIds(10_000));
    const { bytes } = table;
    for (const [a, b, c, d] of manyIds(100, 20_000)) {
      expect(table.compact()).to.equal(false);
      table.add(a, b, c, d);
    }
    // A leaf may grow, as the hash has random factors; a compacted one would take less.
    expect(table.bytes).to.be.at.least(bytes);
    for (const id of manyIds(100)) table.add(...id);
    table.compact();
    expect(table.compact(), 'known identifiers are not added').to.equal(true);
  });

  it('adds identifiers that are late to a compact table without opening it again', () => {
    const table = tableOf(manyIds(100_000));
    compactAll(table);
    const { bytes } = table;
    const late = manyIds(100, 200_000);
    for (const id of late) expect(table.add(...id)).to.equal(true);
    for (const id of late) expect(table.add(...id)).to.equal(false);
    expect([...manyIds(100_000), ...late].every((id) => table.has(...id))).to.equal(true);
    expect(table.size).to.equal(100_100);
    expect(table.bytes - bytes).to.be.below(100_000);
  });

  it('opens leaves again to which much is added, and compacts them again', () => {
    const table = tableOf(manyIds(50_000));
    compactAll(table);
    const more = manyIds(50_000, 200_000);
    // Processor time, as other programs may delay this one.
    const started = process.cpuUsage();
    const added = more.map((id) => table.add(...id));
    expect(process.cpuUsage(started).user / 1000).to.be.below(2_000);
    expect(added.every(Boolean)).to.equal(true);
    expect(compactAll(table)).to.be.above(10);
    expect([...manyIds(50_000), ...more].every((id) => table.has(...id))).to.equal(true);
    expect(table.size).to.equal(100_000);
    expect(table.bytes / table.size).to.be.below(17);
  });

  it('compacts leaves of different depths, each once', () => {
    // The hashes of some begin with a zero bit, so that their leaves are deeper.
    const table = new IdTable();
    const ids = manyIds(40_000).filter((id) => idHash(...id) < 2 ** 31 || (id[0] ?? 0) < 3_000);
    for (const id of ids) table.add(...id);
    compactAll(table);
    expect(compactAll(table)).to.equal(0);
    expect(ids.every((id) => table.has(...id))).to.equal(true);
    expect(table.bytes / table.size).to.be.below(17);
  });

  it('compacts identifiers of the same hash', () => {
    const ids = collidingIds(2000);
    const table = tableOf(ids.slice(0, 1000));
    compactAll(table);
    for (const id of ids.slice(1000)) expect(table.add(...id)).to.equal(true);
    compactAll(table);
    expect(ids.every((id) => table.has(...id))).to.equal(true);
    expect(table.has(5, 5, 5, 5)).to.equal(false);
  });

  it('does not compact what would not become smaller', () => {
    const table = tableOf(manyIds(10));
    expect(compactAll(table)).to.equal(0);
    expect(table.has(...(manyIds(1)[0] ?? [0, 0, 0, 0]))).to.equal(true);
    expect(compactAll(new IdTable(1000))).to.equal(0);
  });

  it('moves the identifiers of a compact table, and gives its memory away', () => {
    const table = tableOf(manyIds(5000));
    compactAll(table);
    const other = tableOf(manyIds(10, 9000));
    table.addTo(other);
    expect(other.size).to.equal(5010);
    expect(manyIds(5000).every((id) => other.has(...id))).to.equal(true);
    table.release();
    const next = tableOf(manyIds(5000, 50_000));
    compactAll(next);
    expect(manyIds(5000).some((id) => next.has(...id))).to.equal(false);
    expect(manyIds(5000, 50_000).every((id) => next.has(...id))).to.equal(true);
  });
});
