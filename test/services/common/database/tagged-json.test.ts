/** JSON without loss. */
import { expect } from 'chai';
import fc from 'fast-check';
import { fromTagged, toTagged } from '../../../../services/common/database/tagged-json.js';

function throughJson(value: unknown): unknown {
  return fromTagged(JSON.parse(JSON.stringify(toTagged(value))));
}

describe('tagged JSON', () => {
  it('returns plain data as it was written', () => {
    const plain = fc.anything({
      withBigInt: true,
      withDate: true,
      withNullPrototype: false,
      withUnicodeString: true,
      key: fc.oneof(fc.string(), fc.constantFrom('$bigint', '$$date', '$', '$undefined', 'constructor')),
      values: [
        fc.boolean(),
        fc.string({ unit: 'binary' }),
        fc.constant(null),
        fc.constant(undefined),
        fc.integer(),
        fc.bigInt(),
        fc.date({ noInvalidDate: true }),
        fc.uint8Array().map((bytes) => Buffer.from(bytes)),
      ],
    });
    fc.assert(
      fc.property(plain, (value) => {
        expect(throughJson(value)).to.deep.equal(value);
      }),
    );
  });

  it('is written as its documentation says', () => {
    const value = { a: 10n, b: new Date(0), c: Buffer.from('abc'), d: undefined, $e: 1 };
    expect(toTagged(value)).to.deep.equal({
      a: { $bigint: '10' },
      b: { $date: '1970-01-01T00:00:00.000Z' },
      c: { $bytes: 'YWJj' },
      d: { $undefined: true },
      $$e: 1,
    });
  });

  for (const [what, value] of [
    ['a function', () => 1],
    ['a symbol', Symbol('s')],
    ['NaN', Number.NaN],
    ['a Map', new Map()],
    ['an instance of a class', new (class Account {})()],
    ['an invalid date', new Date(Number.NaN)],
  ] as const) {
    it(`rejects ${what}, at any depth`, () => {
      expect(() => toTagged([{ value }])).to.throw();
    });
  }

  it('rejects an unknown tag', () => {
    expect(() => fromTagged({ $regexp: 'x' })).to.throw(TypeError, '$regexp');
    expect(() => fromTagged({ $bigint: 1 })).to.throw(TypeError, '$bigint');
  });
});
