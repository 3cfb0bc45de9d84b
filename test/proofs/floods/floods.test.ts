/** `npm run floods` in a short form: floods pass, nothing goes stale or ends, and honest callers are served. */

import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { expect } from 'chai';
import type { FloodFigures } from '../../../proofs/floods/verdict.js';
import type { TemporaryFolder } from '../../../scripts/system/temporary-folder.js';
import { makeTemporaryFolder } from '../../../scripts/system/temporary-folder.js';
import { runProgram } from '../../support/programs.js';

const TEST_TIMEOUT_MS = 240_000;
/** What a busy machine does to honest callers, without any flood: they lose patience. */
const IMPATIENCE = /no answer in time|was aborted/;

describe('npm run floods', function () {
  this.timeout(TEST_TIMEOUT_MS);
  let folder: TemporaryFolder;

  before(async () => {
    folder = await makeTemporaryFolder();
  });

  after(() => folder.remove());

  it('ends no process, makes no instance stale and has no honest call refused, in a short form', async () => {
    const json = join(folder.path, 'floods.json');
    const { output } = await runProgram(['proofs/floods/main', '--short', '--json', json]);
    const { complete, floods } = JSON.parse(await readFile(json, 'utf8')) as {
      complete: boolean;
      floods: Record<string, FloodFigures>;
    };
    expect(complete, output).to.equal(true);
    expect(Object.keys(floods)).to.have.property('length').that.is.at.least(5);
    for (const [name, { exits, stale, refusals, flood, honest }] of Object.entries(floods)) {
      const refused = Object.keys(refusals).filter((reason) => !IMPATIENCE.test(reason));
      expect({ exits, stale, refused }, name).to.deep.equal({ exits: 0, stale: 0, refused: [] });
      expect(Object.keys(flood), `what ${name} sent`).to.not.deep.equal([]);
      expect(honest.known.calls, `honest calls during ${name}`).to.be.greaterThan(0);
    }
  });

  it('exits 1 and says why when there is no flood of a name', async () => {
    const { code, stderr } = await runProgram(['proofs/floods/main', '--only', 'drizzle']);
    expect(code).to.equal(1);
    expect(stderr).to.contain('There is no flood "drizzle"');
  });
});
