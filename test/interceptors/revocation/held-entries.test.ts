/** Which entries a feed names as held, compared with a model that remembers everything. */

import { randomBytes } from 'node:crypto';
import { expect } from 'chai';
import fc from 'fast-check';
import { HELD_ENTRIES_MAX, ID_BYTES } from '../../../interceptors/src/limits.js';
import { HeldEntries } from '../../../interceptors/src/revocation/held-entries.js';

function xorOf(ids: readonly Buffer[]): Buffer {
  const sum = Buffer.alloc(ID_BYTES);
  for (const id of ids) for (let at = 0; at < ID_BYTES; at += 1) sum[at] = (sum[at] ?? 0) ^ (id[at] ?? 0);
  return sum;
}

/** Remembers every id beyond the position. */
class Model {
  position = 0n;
  ids = new Map<bigint, Buffer>();

  add(sequence: bigint, id: Buffer): void {
    if (sequence > this.position) this.ids.set(sequence, id);
  }

  advance(position: bigint): void {
    if (position > this.position) this.position = position;
  }

  expected(): { heldTo: bigint; digest: Buffer } {
    const ids: Buffer[] = [];
    let to = this.position;
    for (let id = this.ids.get(to + 1n); id !== undefined; id = this.ids.get(to + 1n)) {
      ids.push(id);
      to += 1n;
    }
    return ids.length === 0 ? { heldTo: 0n, digest: Buffer.alloc(0) } : { heldTo: to, digest: xorOf(ids) };
  }
}

describe('held entries', () => {
  let held: HeldEntries;

  beforeEach(() => {
    held = new HeldEntries();
  });

  const found = () => ({ heldTo: held.heldTo, digest: held.digest });

  it('are those that follow the position without a gap, in whatever order and how often they arrive', () => {
    const ids = Array.from({ length: 64 }, () => randomBytes(ID_BYTES));
    const sequence = fc.integer({ min: 1, max: 60 });
    const event = fc.oneof(
      {
        weight: 8,
        arbitrary: fc.tuple(fc.constant('add' as const), sequence, fc.integer({ min: 0, max: 3 })),
      },
      { weight: 1, arbitrary: fc.tuple(fc.constant('advance' as const), sequence, fc.constant(0)) },
      { weight: 1, arbitrary: fc.tuple(fc.constant('clear' as const), fc.constant(0), fc.constant(0)) },
    );
    fc.assert(
      fc.property(fc.array(event, { maxLength: 200 }), (events) => {
        held = new HeldEntries();
        let model = new Model();
        for (const [kind, number, fork] of events) {
          if (kind === 'add') {
            // Most of the time an entry has the id that it had before; after a restore, it may have another one.
            const id = ids[number + (fork === 3 ? 3 : 0)] ?? Buffer.alloc(ID_BYTES);
            held.add(BigInt(number), id);
            model.add(BigInt(number), id);
          } else if (kind === 'advance') {
            held.advance(BigInt(number));
            model.advance(BigInt(number));
          } else {
            held.clear();
            model = new Model();
          }
          expect(found()).to.deep.equal(model.expected());
        }
      }),
    );
  });

  it('take a bounded memory, and the last ones are kept while the position is far behind', () => {
    const first = 1_000_000n;
    const ids = new Map<bigint, Buffer>();
    for (let sequence = first; sequence < first + BigInt(HELD_ENTRIES_MAX) + 100n; sequence += 1n) {
      const id = randomBytes(ID_BYTES);
      ids.set(sequence, id);
      held.add(sequence, id);
    }
    expect(held.bytes).to.equal(HELD_ENTRIES_MAX * (ID_BYTES + 8));
    expect(found()).to.deep.equal({ heldTo: 0n, digest: Buffer.alloc(0) });
    // The end of a pull.
    const position = first + BigInt(HELD_ENTRIES_MAX);
    held.advance(position);
    const rest = [...ids].flatMap(([sequence, id]) => (sequence > position ? [id] : []));
    expect(found()).to.deep.equal({ heldTo: position + 99n, digest: xorOf(rest) });
  });

  it('that the digest covers stay when there is no more room', () => {
    const ids: Buffer[] = [];
    for (let sequence = 1; sequence <= HELD_ENTRIES_MAX + 10; sequence += 1) {
      const id = randomBytes(ID_BYTES);
      ids.push(id);
      held.add(BigInt(sequence), id);
    }
    expect(found()).to.deep.equal({
      heldTo: BigInt(HELD_ENTRIES_MAX),
      digest: xorOf(ids.slice(0, HELD_ENTRIES_MAX)),
    });
    held.advance(5n);
    expect(found()).to.deep.equal({
      heldTo: BigInt(HELD_ENTRIES_MAX),
      digest: xorOf(ids.slice(5, HELD_ENTRIES_MAX)),
    });
  });

  it('count the id that came last for an entry that the log has twice, and none that is over', () => {
    const [first, other, second] = [randomBytes(ID_BYTES), randomBytes(ID_BYTES), randomBytes(ID_BYTES)];
    held.add(1n, first);
    held.add(1n, other);
    expect(found()).to.deep.equal({ heldTo: 1n, digest: other });
    held.add(2n, second);
    held.add(2n, first);
    held.add(2n, second);
    expect(found()).to.deep.equal({ heldTo: 2n, digest: xorOf([other, second]) });
    held.advance(1n);
    // Late, and with another id than the list has it.
    held.add(1n, first);
    expect(found()).to.deep.equal({ heldTo: 2n, digest: second });
    held.advance(2n);
    expect(found()).to.deep.equal({ heldTo: 0n, digest: Buffer.alloc(0) });
  });

  it('that contend for the last place are the later one, unless the digest covers the other', () => {
    const ids = Array.from({ length: HELD_ENTRIES_MAX + 1 }, () => randomBytes(ID_BYTES));
    const idOf = (sequence: number): Buffer => ids[sequence % ids.length] ?? Buffer.alloc(0);
    const far = 10 * HELD_ENTRIES_MAX;
    held.add(BigInt(far + HELD_ENTRIES_MAX), idOf(1));
    held.add(BigInt(far), idOf(2));
    held.advance(BigInt(far + HELD_ENTRIES_MAX - 1));
    expect(found()).to.deep.equal({ heldTo: BigInt(far + HELD_ENTRIES_MAX), digest: idOf(1) });
    held.clear();
    for (let sequence = 1; sequence <= HELD_ENTRIES_MAX; sequence += 1)
      held.add(BigInt(sequence), idOf(sequence));
    // Its place is that of the last one that the digest covers.
    held.add(BigInt(2 * HELD_ENTRIES_MAX), randomBytes(ID_BYTES));
    held.advance(BigInt(HELD_ENTRIES_MAX - 1));
    expect(found()).to.deep.equal({ heldTo: BigInt(HELD_ENTRIES_MAX), digest: idOf(HELD_ENTRIES_MAX) });
    held.advance(BigInt(HELD_ENTRIES_MAX));
    expect(found()).to.deep.equal({ heldTo: 0n, digest: Buffer.alloc(0) });
    held.add(BigInt(HELD_ENTRIES_MAX + 1), idOf(3));
    expect(found()).to.deep.equal({ heldTo: BigInt(HELD_ENTRIES_MAX + 1), digest: idOf(3) });
  });

  it('are none when an id or a sequence is not one', () => {
    held.add(1n, Buffer.alloc(3));
    held.add(0n, randomBytes(ID_BYTES));
    held.add(2n ** 60n, randomBytes(ID_BYTES));
    expect(found()).to.deep.equal({ heldTo: 0n, digest: Buffer.alloc(0) });
    held.advance(2n ** 60n);
    expect(held.heldTo).to.equal(0n);
  });
});
