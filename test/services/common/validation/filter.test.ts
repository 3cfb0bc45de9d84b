/** Filters: their meaning, and that no other text of a caller reaches the database. */

import { ServiceError } from '@portcullis/guard/errors';
import { expect } from 'chai';
import fc from 'fast-check';
import {
  FILTER_COMPARISONS_MAX,
  type FilterFields,
  filterOf,
} from '../../../../services/common/validation/filter.js';

const FIELDS: FilterFields = {
  name: { type: 'text', sql: 'name' },
  on_hand: { type: 'integer', sql: 'on_hand' },
  'amount.minor_units': { type: 'integer', sql: 'amount' },
  payment_id: { type: 'uuid', sql: 'payment_id' },
  kind: { type: 'word', sql: 'kind', words: ['ADJUSTED', 'RESERVED'] },
  create_time: { type: 'time', sql: 'create_time' },
};

const read = (text: string) => filterOf(text, FIELDS, 3);

function refusal(text: string): string {
  try {
    read(text);
  } catch (error) {
    if (error instanceof ServiceError && error.code === 'FIELD_INVALID') {
      expect(error.violations.map(({ field }) => field)).to.deep.equal(['filter']);
      return error.message;
    }
    throw error;
  }
  throw new Error(`${text} was taken`);
}

describe('a filter', () => {
  it('matches everything when it is empty', () => {
    expect(read('')).to.deep.include({ condition: '', values: [] });
  });

  it('becomes a condition whose parameters are numbered from the given number', () => {
    const { condition, values } = read(
      'on_hand >= 10 AND name != "a \\"b\\" \\\\ c" AND kind = ADJUSTED AND amount.minor_units<-5 AND create_time > "2026-01-31T12:00:00+01:00"',
    );
    expect(condition).to.equal(
      ' AND on_hand >= $3::bigint AND name IS DISTINCT FROM $4::text AND kind = $5::text AND amount < $6::bigint AND create_time > $7::timestamptz',
    );
    expect(values).to.deep.equal([10n, 'a "b" \\ c', 'ADJUSTED', -5n, '2026-01-31T12:00:00+01:00']);
  });

  it('accepts whole numbers up to the bounds of an int64, and not beyond', () => {
    expect(read('on_hand = 9223372036854775807').values).to.deep.equal([2n ** 63n - 1n]);
    expect(read('on_hand = -9223372036854775808').values).to.deep.equal([-(2n ** 63n)]);
    expect(refusal('on_hand = 9223372036854775808')).to.contain('whole number');
    expect(refusal('on_hand = -9223372036854775809')).to.contain('whole number');
  });

  it('has a fingerprint of its own, so that a page token is valid for one filter only', () => {
    const { fingerprint, pattern } = read('on_hand = 1');
    expect(pattern.test(fingerprint)).to.equal(true);
    expect(pattern.test(read('on_hand = 2').fingerprint)).to.equal(false);
    expect(pattern.test(read('').fingerprint)).to.equal(false);
  });

  for (const [text, said] of [
    ['price = 1', 'names price'],
    ['constructor = 1', 'names constructor'],
    ['__proto__ = 1', 'names __proto__'],
    ['on_hand', 'one of'],
    ['on_hand =', 'a value at character 10'],
    ['on_hand = = 1', 'a value at character 11'],
    ['= 1', 'a field'],
    ['on_hand = 1 OR on_hand = 2', 'AND at character 13'],
    ['on_hand = 1 and on_hand = 2', 'AND at character 13'],
    ['on_hand = 1 AND', 'a field'],
    ['NOT on_hand = 1', 'names NOT'],
    ['(on_hand = 1)', 'character 1 on'],
    ['on_hand : 1', 'character 9 on'],
    ['on_hand = 1;', 'character 12 on'],
    ['on_hand = 1.5', 'whole number'],
    ['on_hand = 1e3', 'whole number'],
    ['on_hand = "1"', 'whole number'],
    ['name = Mug', 'quotation marks'],
    ['name = "Mug', 'character 8 on'],
    ['name = "\\x"', 'character 8 on'],
    ["name = 'Mug'", 'character 8 on'],
    ['name > "a"', 'by = and != only'],
    ['name = "\uFFFD"', 'U+FFFD'],
    ['name = "\0"', 'U+FFFD'],
    ['name = "\uD800"', 'U+FFFD'],
    ['kind = GONE', 'one of ADJUSTED, RESERVED'],
    ['kind < RESERVED', 'by = and != only'],
    ['payment_id = "1"', 'UUID'],
    ['create_time > "yesterday"', 'a time'],
    ['create_time > "2026-02-30T00:00:00Z"', 'a time'],
    ['create_time > "2026-13-01T00:00:00Z"', 'a time'],
    ['create_time > "2026-01-01T24:00:01Z"', 'a time'],
    ['create_time > "0000-01-01T00:00:00Z"', 'a time'],
    ['create_time > "infinity"', 'a time'],
    [`name = "${'x'.repeat(1_000)}"`, 'at most 1000 characters'],
  ] as const) {
    it(`is rejected when it is ${text.slice(0, 40)}`, () => {
      expect(refusal(text)).to.contain(said);
    });
  }

  it('is rejected with more comparisons than the limit', () => {
    const many = (count: number) => Array.from({ length: count }, () => 'on_hand = 1').join(' AND ');
    expect(read(many(FILTER_COMPARISONS_MAX)).values).to.have.lengthOf(FILTER_COMPARISONS_MAX);
    expect(refusal(many(FILTER_COMPARISONS_MAX + 1))).to.contain('at most 10 comparisons');
  });

  it('is parsed or rejected for any text, and none of its text is part of the condition', () => {
    const piece = fc.constantFrom(
      'on_hand',
      'name',
      '=',
      '!=',
      ' ',
      '"',
      '\\',
      'AND',
      '1',
      '-',
      "'",
      ';',
      '$1',
      'é',
      '(',
    );
    const texts = fc.oneof(
      fc.string({ maxLength: 60 }),
      fc.array(piece, { maxLength: 12 }).map((all) => all.join(' ')),
    );
    fc.assert(
      fc.property(texts, (text) => {
        try {
          const { condition } = read(text);
          expect(condition).to.match(
            /^( AND (name|on_hand|amount|payment_id|kind|create_time) (=|<|<=|>|>=|IS DISTINCT FROM) \$\d+::[a-z]+)*$/,
          );
        } catch (error) {
          if (!(error instanceof ServiceError)) throw error;
        }
      }),
      { numRuns: 2_000 },
    );
  });
});
