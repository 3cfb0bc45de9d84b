/** The table of security requirements, and the tests that it names. */

import { readFile } from 'node:fs/promises';
import { expect } from 'chai';

const PAGE = new URL('../../../docs/security/requirements.md', import.meta.url);
/** A file below `test/`, and the title of one of its tests. */
const REFERENCE = /^`([a-z0-9/-]+)`: (.+)$/;

interface Row {
  readonly requirement: string;
  readonly met: string;
  readonly references: readonly string[];
}

describe('the table of security requirements', () => {
  let rows: Row[];

  before(async () => {
    rows = (await readFile(PAGE, 'utf8'))
      .split('\n')
      .filter((line) => line.startsWith('| ') && !/^\| (requirement|-{3,})/.test(line))
      .map((line) => {
        const [, requirement = '', met = '', tests = ''] = line.split('|').map((cell) => cell.trim());
        return { requirement, met, references: tests.split('; ').filter(Boolean) };
      });
  });

  it('names only tests that exist, by file and title', async () => {
    const references = rows.flatMap((row) => row.references);
    expect(references).to.have.length.of.at.least(80);
    const missing: string[] = [];
    for (const reference of references) {
      const [, file = '', name = ''] = REFERENCE.exec(reference) ?? [];
      const source = await readFile(new URL(`../../${file}.test.ts`, import.meta.url), 'utf8').catch(
        () => '',
      );
      const quoted = ["'", '"', '`'].some((quote) => source.includes(`it(${quote}${name}${quote}`));
      if (!quoted) missing.push(reference);
    }
    expect(missing).to.deep.equal([]);
  });

  it('names a test for every requirement that can be tested', () => {
    const silent = rows.filter(
      ({ met, references }) => references.length === 0 && !/^\*\*Not met\*\*/.test(met),
    );
    // A requirement that is met by the absence of a feature has no test.
    expect(silent.map(({ met }) => met)).to.have.members(['there are none', 'there are none']);
  });
});
