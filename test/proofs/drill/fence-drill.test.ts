/** The fence drill passes on the system as it is, and finds late commits when the fence is left out. */

import { join } from 'node:path';
import { expect } from 'chai';
import { makeTemporaryFolder, type TemporaryFolder } from '../../../scripts/system/temporary-folder.js';
import { PROJECT_FOLDER } from '../../support/project-copy.js';
import { copyWithout, runDrill } from './run-drill.js';

const TEST_TIMEOUT_MS = 600_000;
const GUARD = {
  file: 'interceptors/src/server/guarded-call.ts',
  line: "    if (!(await this.#guard.fences.pass(query))) throw refusal('REVOCATION_STATE_STALE');",
  instead: '    void query;',
};

interface Figures {
  readonly rounds: number;
  readonly races: number;
  readonly unfenced: number;
  readonly commits: number;
  readonly late_commits: number;
}

describe('npm run drill, fence', function () {
  this.timeout(TEST_TIMEOUT_MS);
  let folder: TemporaryFolder;

  before(async () => {
    folder = await makeTemporaryFolder();
  });
  after(() => folder.remove());

  it('commits nothing after Revoke has returned FENCED, whatever happens to the other instance', async () => {
    const options = ['--seed', '7', '--only', 'fence', '--rounds', '10'];
    const { code, output, figures } = await runDrill<Figures>(
      PROJECT_FOLDER,
      join(folder.path, 'whole'),
      options,
    );
    expect(output).to.contain('No violation.');
    expect(code).to.equal(0);
    expect(figures).to.include({ rounds: 10, races: 240, unfenced: 0, late_commits: 0 });
    expect(figures.commits).to.be.above(0);
  });

  it('exits 1 when transactions do not pass the fence', async () => {
    const copy = await copyWithout(join(folder.path, 'unguarded'), GUARD);
    const options = ['--seed', '7', '--only', 'fence', '--rounds', '2', '--faults', 'cut off'];
    const { code, figures } = await runDrill<Figures>(copy, join(folder.path, 'broken'), options);
    expect(code).to.equal(1);
    expect(figures.late_commits).to.be.above(0);
  });
});
