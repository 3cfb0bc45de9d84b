/** The rows about transactions: fences and retention. They agree with the page, their vectors and the code. */

import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect } from 'chai';
import { FENCE_GUARDS } from '../../../proofs/explore/fence/guards.js';
import { searchFence } from '../../../proofs/explore/fence/search.js';
import { fenceMismatch, readFenceVectors } from '../../../proofs/spec/fence-checker.js';
import { FENCE_ROWS } from '../../../proofs/spec/fence-rows.js';
import { keptUntilMs, RETENTION_ROWS, readRetentionVectors } from '../../../proofs/spec/retention-rows.js';
import { SPECIFICATION_FOLDER } from '../../../proofs/spec/vectors.js';
import type { EntryKind } from '../../../services/auth/records/revocations.js';
import { KEEP_MARGIN_SECONDS, KEEP_SECONDS_MAX, tokensEndOf } from '../../../services/auth/revocation/log.js';

const page = readFileSync(join(SPECIFICATION_FOLDER, 'revocation-v1.md'), 'utf8');

/** The numbers of the rows on the page that begin with a letter. */
function rowsOf(letter: string): readonly (string | undefined)[] {
  return [...page.matchAll(/^\| ([A-Z][0-9]+) +\|/gm)].map(([, id]) => id).filter((id) => id?.[0] === letter);
}

/** Guards without which an instance or the database does something else than the rows of fences say. */
const COMPARED = [
  'fence-lock',
  'fence-latest',
  'fence-position',
  'fence-epoch',
  'fence-list',
  'fence-rises',
  'fence-commit',
];

const PATIENCE_MS = 180_000;

describe('the rows of fences', function () {
  this.timeout(PATIENCE_MS);
  const vectors = readFenceVectors();

  it('are those of the page', () => {
    expect(rowsOf('X')).to.deep.equal(FENCE_ROWS);
  });

  for (const vector of vectors) {
    it(`decide as the vectors do: ${vector.name}`, () => {
      expect(fenceMismatch(vector)).to.equal(undefined);
    });
  }

  for (const row of FENCE_ROWS) {
    it(`fail a vector without row ${row}`, () => {
      const failing = vectors.filter((vector) => fenceMismatch(vector, new Set([row])) !== undefined);
      const declared = vectors.filter(({ rows }) => rows.includes(row));
      expect(failing.map(({ name }) => name)).to.include.members(declared.map(({ name }) => name));
      expect(declared.length, 'vectors that name the row').to.be.greaterThan(0);
    });
  }

  for (const guard of COMPARED) {
    it(`find the explored fence to differ without ${guard}`, async () => {
      const world = FENCE_GUARDS.find(({ name }) => name === guard)?.world ?? '';
      const outcome = await searchFence(world, guard, true).then(
        ({ violation }) => violation,
        (error: unknown) => String(error),
      );
      expect(outcome).to.match(/the fence and the tables of the specification differ/);
    });
  }
});

describe('the rows of retention', () => {
  const vectors = readRetentionVectors();

  it('are those of the page', () => {
    expect(rowsOf('K')).to.deep.equal(RETENTION_ROWS.map(({ id }) => id));
  });

  for (const { name, row, entry, keep_until_ms: keepUntilMs } of vectors) {
    it(`decide as the vectors do: ${name}`, () => {
      expect(keptUntilMs(entry)).to.equal(keepUntilMs);
      expect(keptUntilMs(entry, {}, row)).to.not.equal(keepUntilMs);
    });

    it(`are those of the code: ${name}`, () => {
      const { kind, issuer, token_expires_ms: endMs } = entry;
      const end = tokensEndOf({
        kind: kind as EntryKind,
        issuer,
        key: Buffer.alloc(0),
        minGeneration: 0n,
        tokenExpireTime: endMs === null ? undefined : new Date(endMs),
      });
      expect(end instanceof Date ? 'K2' : end === 'ANY' ? 'K1' : 'K3').to.equal(row);
      if (end instanceof Date) expect(end.getTime() + KEEP_MARGIN_SECONDS * 1000).to.equal(keepUntilMs);
      if (end === 'ANY') expect(entry.locked_ms + KEEP_SECONDS_MAX * 1000).to.equal(keepUntilMs);
    });
  }

  it('all have a vector', () => {
    expect(new Set(vectors.map(({ row }) => row))).to.deep.equal(new Set(RETENTION_ROWS.map(({ id }) => id)));
  });
});
