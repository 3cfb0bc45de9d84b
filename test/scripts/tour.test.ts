/** The tour succeeds on the system as it is, and fails when a check is removed from the guard. */

import { join } from 'node:path';
import { expect } from 'chai';
import type { TemporaryFolder } from '../../scripts/system/temporary-folder.js';
import { makeTemporaryFolder } from '../../scripts/system/temporary-folder.js';
import { type Ended, runProgram } from '../support/programs.js';
import { copyProject, PROJECT_FOLDER } from '../support/project-copy.js';

const TEST_TIMEOUT_MS = 600_000;
const STEPS_MIN = 12;
/** The place where the guard rejects a revoked token. */
const GUARD_FILE = 'interceptors/src/server/admission.ts';
const GUARD_LINE = /^.*return 'TOKEN_REVOKED';$/gm;

describe('npm run tour', function () {
  this.timeout(TEST_TIMEOUT_MS);
  let folder: TemporaryFolder;

  before(async () => {
    folder = await makeTemporaryFolder();
  });

  after(() => folder.remove());

  it('runs the main job, prints the time of every step, and exits 0', async () => {
    const { code, output } = await tourIn(PROJECT_FOLDER);
    expect(output).to.contain('Every step held.').and.not.to.contain('✗');
    expect(code).to.equal(0);
    expect(output.match(/^ *\d+ ✓ +-?\d+\.\d ms {2}\S/gm)).to.have.length.of.at.least(STEPS_MIN);
    for (const place of ['inventory-1', 'inventory-2', 'payment']) {
      expect(output).to.match(
        new RegExp(`✓ +-?\\d+\\.\\d ms {2}the next call to ${place} is refused: TOKEN_REVOKED`),
      );
    }
  });

  it('exits 1 when the guard does not check for revoked tokens', async () => {
    const copy = join(folder.path, 'unguarded');
    await copyProject(copy, { file: GUARD_FILE, from: GUARD_LINE, to: '' });
    const { code, output } = await tourIn(copy);
    expect(code).to.equal(1);
    expect(output)
      .to.match(/✓ .* olga revokes alice's session/)
      .and.to.match(/✗/);
    expect(output).not.to.contain('Every step held.');
  });
});

async function tourIn(cwd: string): Promise<Ended> {
  return await runProgram(['scripts/tour'], { cwd });
}
