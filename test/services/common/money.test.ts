/** Amounts of money for people. */

import { expect } from 'chai';
import { formatMoney } from '../../../services/common/money.js';

describe('formatMoney()', () => {
  for (const [minorUnits, currencyCode, text] of [
    [50n, 'EUR', '0.50 EUR'],
    [5n, 'EUR', '0.05 EUR'],
    [0n, 'EUR', '0.00 EUR'],
    [123_456n, 'USD', '1234.56 USD'],
    [-7n, 'EUR', '-0.07 EUR'],
    [50n, 'JPY', '50 JPY'],
    [1_234n, 'KWD', '1.234 KWD'],
    [2n ** 63n - 1n, 'EUR', '92233720368547758.07 EUR'],
  ] as const) {
    it(`writes ${minorUnits} minor units of ${currencyCode} as ${text}`, () => {
      expect(formatMoney({ minorUnits, currencyCode })).to.equal(text);
    });
  }
});
