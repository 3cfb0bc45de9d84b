/** Page sizes and page tokens. */

import { ServiceError } from '@portcullis/guard';
import { expect } from 'chai';
import fc from 'fast-check';
import {
  cursorPatterns,
  PAGE_TOKEN_CHARACTERS_MAX,
  pageOf,
  pageTokenOf,
} from '../../../../services/common/validation/paging.js';

function refusedField(act: () => unknown): string | undefined {
  try {
    act();
  } catch (error) {
    if (error instanceof ServiceError && error.code === 'FIELD_INVALID') return error.violations[0]?.field;
    throw error;
  }
  return undefined;
}

describe('paging', () => {
  it('returns 50 entries by default, and never more than 200', () => {
    const sizes = [0, 1, 50, 200, 201, 2_147_483_647];
    expect(sizes.map((pageSize) => pageOf({ pageSize, pageToken: '' }).limit)).to.deep.equal([
      50, 1, 50, 200, 200, 200,
    ]);
  });

  it('rejects a negative size', () => {
    expect(refusedField(() => pageOf({ pageSize: -1, pageToken: '' }))).to.equal('page_size');
  });

  it('starts with the first page without a token', () => {
    expect(pageOf({ pageSize: 0, pageToken: '' }).after).to.equal(undefined);
  });

  it('returns every cursor whose text a database can hold', () => {
    const member = fc.string({ unit: 'grapheme', maxLength: 40 }).filter((text) => !text.includes('\0'));
    const cursors = fc.array(member, { maxLength: 4 });
    fc.assert(
      fc.property(cursors, (cursor) => {
        const token = pageTokenOf(cursor);
        expect(token).to.match(/^[A-Za-z0-9_-]+$/);
        expect(pageOf({ pageSize: 1, pageToken: token }).after).to.deep.equal(cursor);
      }),
    );
  });

  it('rejects a token that no page carried', () => {
    const encode = (text: string) => Buffer.from(text).toString('base64url');
    const bad = [
      'x',
      '!',
      encode('{}'),
      encode('[1]'),
      encode('["a" ]'),
      encode('["a\\u0000"]'),
      encode('null'),
    ];
    bad.push(
      `${pageTokenOf(['a'])}=`,
      ` ${pageTokenOf(['a'])}`,
      pageTokenOf(['a'.repeat(PAGE_TOKEN_CHARACTERS_MAX)]),
    );
    for (const pageToken of bad) {
      expect(
        refusedField(() => pageOf({ pageSize: 0, pageToken })),
        pageToken,
      ).to.equal('page_token');
    }
    fc.assert(
      fc.property(fc.string(), (pageToken) => {
        fc.pre(pageToken !== '');
        expect(refusedField(() => pageOf({ pageSize: 0, pageToken }))).to.equal('page_token');
      }),
    );
  });

  it('rejects a cursor whose members the database could not read', () => {
    const { time, uuid, integer } = cursorPatterns;
    const id = '0190f5d0-7c3a-7000-8000-0123456789ab';
    const good = ['2026-02-28T10:00:00.123456Z', id, '-12'];
    const page = (cursor: string[]) =>
      pageOf({ pageSize: 0, pageToken: pageTokenOf(cursor) }, [time, uuid, integer]);
    expect(page(good).after).to.deep.equal(good);
    const wrong = [
      [],
      good.slice(1),
      [...good, ''],
      ['2026-13-28T10:00:00Z', id, '1'],
      ['yesterday', id, '1'],
      [good[0] ?? '', `${id}0`, '1'],
      [good[0] ?? '', id, '99999999999999999999'],
      [good[0] ?? '', id, "1'"],
    ];
    for (const cursor of wrong)
      expect(
        refusedField(() => page(cursor)),
        String(cursor),
      ).to.equal('page_token');
  });
});
