/** The drill passes on the system as it is, and fails when a guard is removed. */

import { readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { expect } from 'chai';
import type { TemporaryFolder } from '../../../scripts/system/temporary-folder.js';
import { makeTemporaryFolder } from '../../../scripts/system/temporary-folder.js';
import { runProgram } from '../../support/programs.js';
import { PROJECT_FOLDER } from '../../support/project-copy.js';
import { copyWithout, runDrill } from './run-drill.js';

const TEST_TIMEOUT_MS = 600_000;
/** One fault each of the broker, the connection to auth, an instance and auth itself. */
const ROUNDS = 4;
const SEED = 461;
const FLAGS = ['--only', 'REVOCATION', '--seed', String(SEED)];
/** Where a lease ends. */
const GUARD_FILE = 'interceptors/src/revocation/feed.ts';
const GUARD_LINE = 'return lease.lengthMs - elapsedMs;';

interface Figures {
  readonly rounds: number;
  readonly revocations: number;
  readonly checks: number;
  readonly violations: number;
  readonly violations_by_kind: Readonly<Record<string, number>>;
  readonly max_late_ms: number;
  readonly traces: number;
  readonly compared_steps: number;
  readonly faults: Readonly<Record<string, number>>;
}

describe('npm run drill', function () {
  this.timeout(TEST_TIMEOUT_MS);
  let folder: TemporaryFolder;

  before(async () => {
    folder = await makeTemporaryFolder();
  });

  after(() => folder.remove());

  it('injects faults, finds no violation, prints its figures, and leaves nothing behind', async () => {
    const temporary = join(folder.path, 'whole');
    const { code, output, figures } = await runDrill<Figures>(PROJECT_FOLDER, temporary, [
      ...FLAGS,
      '--rounds',
      String(ROUNDS),
    ]);
    expect(output).to.contain('No violation.').and.to.contain(`seed ${SEED}`);
    expect(code).to.equal(0);
    expect(figures.violations).to.equal(0);
    expect(figures.rounds).to.equal(ROUNDS);
    expect(Object.keys(figures.faults)).to.have.lengthOf(ROUNDS);
    expect(figures.revocations).to.be.at.least(5 * ROUNDS);
    expect(figures.checks).to.be.at.least(100 * ROUNDS);
    expect(figures.max_late_ms).to.be.at.most(1_600);
    // Auth, two inventories, payment and echo, and some of them twice.
    expect(figures.traces).to.be.at.least(5);
    expect(figures.compared_steps).to.be.at.least(500);
    expect((await readdir(temporary)).filter((name) => name.startsWith('portcullis-'))).to.deep.equal([]);
  });

  it('exits 1 when an instance trusts its list for ever', async () => {
    const guard = { file: GUARD_FILE, line: GUARD_LINE, instead: 'return lease.lengthMs;' };
    const copy = await copyWithout(join(folder.path, 'unguarded'), guard);
    const rounds = ['--rounds', '1', '--faults', 'auth connections'];
    const { code, figures } = await runDrill<Figures>(copy, join(folder.path, 'broken'), [
      ...FLAGS,
      ...rounds,
    ]);
    expect(code).to.equal(1);
    expect(figures.violations_by_kind).to.include.keys('ADMITTED_LATE', 'OTHER_DECISION');
  });

  it('lists the drills when it is asked for an unknown one', async () => {
    const { code, stderr } = await runProgram(['proofs/drill/main', '--only', 'nothing']);
    expect(code).to.equal(1);
    expect(stderr).to.contain('revocation');
  });
});
