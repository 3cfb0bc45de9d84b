/** `npm run floods` in a short form: floods pass, nothing goes stale or ends, and honest callers are served. */

import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { expect } from 'chai';
import type { FloodFigures } from '../../../proofs/floods/verdict.js';
import type { TemporaryFolder } from '../../../scripts/system/temporary-folder.js';
import { makeTemporaryFolder } from '../../../scripts/system/temporary-folder.js';
import { runProgram } from '../../support/programs.js';

const TEST_TIMEOUT_MS = 600_000;
/** A machine that is busy with other work lets instances go stale and callers lose patience without any flood. */
const STARVED_MIN = 0.2;

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
    for (const [name, figures] of Object.entries(floods)) {
      const { exits, stale, refusals, starved, flood, honest } = figures;
      expect({ exits }, name).to.deep.equal({ exits: 0 });
      if (starved < STARVED_MIN) expect({ stale, refusals }, name).to.deep.equal({ stale: 0, refusals: {} });
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
