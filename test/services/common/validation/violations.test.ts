/** The collector of violations, and the rules for identifiers, request ids and currencies. */
import { randomUUID } from 'node:crypto';
import { ServiceError } from '@portcullis/guard/errors';
import { expect } from 'chai';
import fc from 'fast-check';
import { MINOR_UNITS_MAX } from '../../../../services/common/money.js';
import { parseUuid } from '../../../../services/common/validation/identifiers.js';
import { parseRequestId, storedRequestIds } from '../../../../services/common/validation/request-id.js';
import { createViolations, type Violations } from '../../../../services/common/validation/violations.js';

function foundBy(check: (violations: Violations) => unknown) {
  const violations = createViolations();
  check(violations);
  return violations.found;
}

describe('a UUID', () => {
  it('is accepted in either case, and returned in lower case', () => {
    const uuid = randomUUID();
    expect(parseUuid(uuid)).to.equal(uuid);
    expect(parseUuid(uuid.toUpperCase())).to.equal(uuid);
    expect(createViolations().requireUuid('id', uuid.toUpperCase())).to.equal(uuid);
  });

  it('is rejected in any other spelling', () => {
    const uuid = randomUUID();
    for (const text of [
      '',
      'x',
      ` ${uuid}`,
      `{${uuid}}`,
      uuid.replaceAll('-', ''),
      `${uuid}\n`,
      `${uuid}0`,
    ]) {
      expect(parseUuid(text), text).to.equal(undefined);
      expect(foundBy((violations) => violations.requireUuid('id', text))).to.deep.equal([
        { field: 'id', description: 'must be a UUID' },
      ]);
    }
  });
});

describe('request_id', () => {
  it('may be any text of 1 to 255 characters, counted in characters and not in bytes', () => {
    const character = fc.string({ unit: 'binary', minLength: 1, maxLength: 1 });
    fc.assert(
      fc.property(fc.array(character, { minLength: 1, maxLength: 255 }), (characters) => {
        const text = characters.join('');
        fc.pre(!/[\0\uFFFD]/.test(text));
        expect(foundBy((violations) => violations.requireRequestId(text))).to.deep.equal([]);
      }),
    );
    expect(foundBy((violations) => violations.requireRequestId('🎲'.repeat(255)))).to.deep.equal([]);
  });

  for (const [what, requestId] of [
    ['256 characters', 'x'.repeat(256)],
    ['NUL', 'a\0b'],
    ['the replacement character of invalid UTF-8', 'a\uFFFDb'],
    ['a lone surrogate', 'a\uD800b'],
  ] as const) {
    it(`is rejected with ${what}`, () => {
      expect(foundBy((violations) => violations.requireRequestId(requestId))).to.have.lengthOf(1);
      expect(() => parseRequestId(requestId))
        .to.throw(ServiceError)
        .with.property('code', 'FIELD_INVALID');
    });
  }

  it('is rejected when it is empty and required, and accepted as absent when it is optional', () => {
    expect(foundBy((violations) => violations.requireRequestId(''))).to.have.lengthOf(1);
    expect(parseRequestId('')).to.equal('');
  });

  it('has one canonical form: a UUID in lower case, any other text as it was sent', () => {
    const uuid = randomUUID();
    expect(parseRequestId(uuid.toUpperCase())).to.equal(uuid);
    expect(parseRequestId('Order-7')).to.equal('Order-7');
  });

  it('is looked up in upper case, too, when it is a UUID, because it may have been stored that way', () => {
    const uuid = randomUUID();
    expect(storedRequestIds(uuid)).to.deep.equal([uuid, uuid.toUpperCase()]);
    expect(storedRequestIds('Order-7')).to.deep.equal(['Order-7']);
  });
});

describe('a currency', () => {
  it('is accepted only as a code of ISO 4217 in upper case', () => {
    for (const code of ['EUR', 'USD', 'JPY']) {
      expect(foundBy((violations) => violations.requireCurrency('c', code))).to.deep.equal([]);
    }
    for (const code of ['', 'eur', 'EURO', 'E R', 'ZZZ', '€']) {
      expect(
        foundBy((violations) => violations.requireCurrency('c', code)),
        code,
      ).to.have.lengthOf(1);
    }
  });
});

describe('violations', () => {
  it('are thrown together as FIELD_INVALID, the first one in the message with the number of the others', () => {
    const violations = createViolations();
    violations.requireSku('sku', 'lower');
    violations.requireAmount('price', { minorUnits: 0n, currencyCode: 'EUR' });
    violations.requireAmount('price', { minorUnits: MINOR_UNITS_MAX + 1n, currencyCode: 'EUR' });
    expect(() => violations.throwIfAny())
      .to.throw(ServiceError, /^sku must be .* \(and 2 more\)$/)
      .with.property('code', 'FIELD_INVALID');
  });

  it('are not thrown when there are none', () => {
    const violations = createViolations();
    violations.requireText('name', 'Łampa 灯');
    violations.requireOptionalText('reason', '');
    violations.requireForeignId('id', 'auth0|1');
    violations.requireRange('delta', 0n, { min: 0n, max: 0n });
    expect(() => violations.throwIfAny()).to.not.throw();
  });

  it('include text that is blank, too long, or has control characters', () => {
    for (const text of ['', ' ', 'x'.repeat(201), 'a\nb', 'a\uFFFD', '\uD800']) {
      expect(
        foundBy((violations) => violations.requireText('name', text)),
        text,
      ).to.have.lengthOf(1);
    }
    for (const text of ['x'.repeat(201), 'a\nb', 'a\uFFFD', '\uD800']) {
      expect(foundBy((violations) => violations.requireOptionalText('reason', text))).to.have.lengthOf(1);
    }
  });
});
