/** Checks of request fields. */
import { expect } from 'chai';
import fc from 'fast-check';
import { checkCurrency, checkLines, checkRequestId, requireValid } from '../../../services/payment/fields.js';

describe('fields of payment', () => {
  it('takes any text of 1 to 255 characters as request_id, counting characters and not bytes', () => {
    const character = fc.string({ unit: 'binary', minLength: 1, maxLength: 1 });
    fc.assert(
      fc.property(fc.array(character, { minLength: 1, maxLength: 255 }), (characters) => {
        const text = characters.join('');
        fc.pre(!/[\0\uFFFD]/.test(text));
        expect(checkRequestId(text)).to.deep.equal([]);
      }),
    );
    expect(checkRequestId('🎲'.repeat(255))).to.deep.equal([]);
  });

  for (const [what, requestId] of [
    ['an empty one', ''],
    ['256 characters', 'x'.repeat(256)],
    ['NUL', 'a\0b'],
    ['what came of invalid UTF-8', 'a\uFFFDb'],
    ['a lone surrogate', 'a\uD800b'],
  ] as const) {
    it(`refuses ${what} as request_id`, () => {
      expect(checkRequestId(requestId)).to.have.lengthOf(1);
    });
  }

  it('knows the currencies of ISO 4217 in their one spelling', () => {
    for (const code of ['EUR', 'USD', 'JPY']) expect(checkCurrency('c', code)).to.deep.equal([]);
    for (const code of ['', 'eur', 'EURO', 'E R', 'ZZZ', '€']) {
      expect(checkCurrency('c', code), code).to.have.lengthOf(1);
    }
  });

  it('takes 1 to 1,000,000 units of up to fifty items', () => {
    const lines = Array.from({ length: 50 }, (_, index) => ({ sku: `S-${index}`, quantity: 1_000_000n }));
    expect(checkLines(lines)).to.deep.equal([]);
    expect(checkLines([{ sku: 'A', quantity: 1n }])).to.deep.equal([]);
  });

  it('refuses every quantity outside 1 to 1,000,000', () => {
    const outside = fc.oneof(fc.bigInt({ max: 0n }), fc.bigInt({ min: 1_000_001n }));
    fc.assert(
      fc.property(outside, (quantity) => {
        const found = checkLines([{ sku: 'A', quantity }]);
        expect(found.map(({ field }) => field)).to.deep.equal(['lines[0].quantity']);
      }),
    );
  });

  it('tells of at most as many violations as fit into trailers, and how many there are', () => {
    const lines = Array.from({ length: 50 }, () => ({ sku: '', quantity: 0n }));
    const failing = () => requireValid(checkLines(lines), checkRequestId(''));
    expect(failing)
      .to.throw(/and 100 more/)
      .with.property('violations')
      .with.lengthOf(25);
  });
});
