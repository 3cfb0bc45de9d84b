/** The tables of the specification as data: they agree with the page, the vectors and each other. */

import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect } from 'chai';
import { firstMismatch } from '../../../proofs/spec/checker.js';
import { ReferenceInstance, ROWS } from '../../../proofs/spec/reference.js';
import { readVectors, SPECIFICATION_FOLDER, type Vector } from '../../../proofs/spec/vectors.js';

const vectors = readVectors();

/** What the vector finds; undefined when every decision is that of the tables. */
function mismatchOf({ steps, listMax }: Vector, ...without: string[]): string | undefined {
  const reference = new ReferenceInstance({ listMax, without: new Set(without) });
  return firstMismatch(steps, reference)?.what;
}

describe('the tables of the specification', () => {
  it('have the same rows as the page, in the same order', () => {
    const page = readFileSync(join(SPECIFICATION_FOLDER, 'revocation-v1.md'), 'utf8');
    const rows = [...page.matchAll(/^\| ([A-Z][0-9]+) +\|/gm)].map(([, id]) => id);
    // Those of the issuer, of messages, of retention and of fences are not about the state of an instance.
    expect(rows.filter((id) => id !== undefined && !/^[IWKX]/.test(id))).to.deep.equal(ROWS);
  });

  for (const vector of vectors) {
    it(`decide as the vectors do: ${vector.name}`, () => {
      expect(mismatchOf(vector)).to.equal(undefined);
    });
  }

  for (const row of ROWS) {
    it(`fail a vector without row ${row}`, () => {
      const failing = vectors.filter((vector) => mismatchOf(vector, row) !== undefined);
      const declared = vectors.filter(({ rows }) => rows.includes(row));
      expect(failing.length, 'vectors that fail').to.be.greaterThan(0);
      expect(failing.map(({ name }) => name)).to.include.members(declared.map(({ name }) => name));
      expect(declared.length, 'vectors that name the row').to.be.greaterThan(0);
    });
  }
});
