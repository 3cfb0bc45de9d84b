/** The fence drill passes on the system as it is, and finds late commits when the fence is left out. */

import { join } from 'node:path';
import { expect } from 'chai';
import { makeTemporaryFolder, type TemporaryFolder } from '../../../scripts/system/temporary-folder.js';
import { PROJECT_FOLDER } from '../../support/project-copy.js';
import { copyWithout, runDrill } from './run-drill.js';

const TEST_TIMEOUT_MS = 600_000;
const GUARD = {
  file: 'interceptors/src/server/guarded-call.ts',
  line: "    if (!(await this.#guard.fences.pass(query))) throw refuse('REVOCATION_STATE_STALE');",
  instead: '    void query;',
};

/** Without the lock, a transaction that has passed may be committed after the fence has risen. */
const LOCK = {
  file: 'interceptors/src/revocation/fence.ts',
  line: 'FROM revocation_fence FOR SHARE`;',
  instead: 'FROM revocation_fence`;',
};

interface RaceFigures {
  readonly races: number;
  readonly outcomes: Readonly<Record<'committed' | 'TOKEN_REVOKED' | 'REVOCATION_STATE_STALE', number>>;
  readonly late_commits: number;
}

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

  it('commits nothing after Revoke has returned FENCED, in thousands of races of single transactions', async () => {
    const options = ['--seed', '7', '--only', 'fence', '--races', '3000'];
    const { code, output, figures } = await runDrill<RaceFigures>(
      PROJECT_FOLDER,
      join(folder.path, 'races'),
      options,
    );
    expect(output).to.contain('No violation.');
    expect(code).to.equal(0);
    expect(figures).to.include({ unfenced: 0, late_commits: 0, miscounted: 0, violations: 0 });
    const { races, outcomes } = figures;
    expect(races).to.be.at.least(3000);
    expect(outcomes.committed / races).to.be.above(0.1);
    expect((outcomes.TOKEN_REVOKED + outcomes.REVOCATION_STATE_STALE) / races).to.be.above(0.1);
  });

  for (const [guard, faults] of [
    [GUARD, 'cut off'],
    [LOCK, 'thawed'],
  ] as const) {
    it(`finds late commits in races without: ${guard.line.trim()}`, async () => {
      const copy = await copyWithout(join(folder.path, `races without ${faults}`), guard);
      // Where other programs keep the processors busy, all races of a run may happen one after the other.
      for (const seed of ['7', '8', '9']) {
        const options = ['--seed', seed, '--only', 'fence', '--races', '2500', '--faults', faults];
        const out = join(folder.path, `late ${faults} ${seed}`);
        const { code, figures } = await runDrill<RaceFigures>(copy, out, options);
        if (code === 0) continue;
        expect(code).to.equal(1);
        expect(figures.late_commits).to.be.above(0);
        return;
      }
      expect.fail('no late commit was found with three seeds');
    });
  }
});
