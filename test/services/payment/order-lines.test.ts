/** The lines of an order. */
import { expect } from 'chai';
import fc from 'fast-check';
import { createViolations } from '../../../services/common/validation/violations.js';
import { type OrderLine, requireLines } from '../../../services/payment/order-lines.js';

describe('lines of an order', () => {
  function violatedFieldsOf(lines: readonly OrderLine[]): string[] {
    const violations = createViolations();
    requireLines(violations, lines);
    return violations.found.map(({ field }) => field);
  }

  it('are accepted with up to fifty items of 1 to 1,000,000 units each', () => {
    const lines = Array.from({ length: 50 }, (_, index) => ({ sku: `S-${index}`, quantity: 1_000_000n }));
    expect(violatedFieldsOf(lines)).to.deep.equal([]);
    expect(violatedFieldsOf([{ sku: 'A', quantity: 1n }])).to.deep.equal([]);
  });

  it('are rejected with a quantity outside 1 to 1,000,000', () => {
    const outside = fc.oneof(fc.bigInt({ max: 0n }), fc.bigInt({ min: 1_000_001n }));
    fc.assert(
      fc.property(outside, (quantity) => {
        expect(violatedFieldsOf([{ sku: 'A', quantity }])).to.deep.equal(['lines[0].quantity']);
      }),
    );
  });

  it('are rejected when two of them have the same item', () => {
    const twice = [
      { sku: 'A', quantity: 1n },
      { sku: 'A', quantity: 2n },
    ];
    expect(violatedFieldsOf(twice)).to.deep.equal(['lines[1].sku']);
  });

  it('are reported with at most as many violations as fit into trailers, and with the total number', () => {
    const lines = Array.from({ length: 50 }, () => ({ sku: '', quantity: 0n }));
    const violations = createViolations();
    requireLines(violations, lines);
    violations.requireRequestId('');
    expect(() => violations.throwIfAny())
      .to.throw(/and 100 more/)
      .with.property('violations')
      .with.lengthOf(25);
  });
});
