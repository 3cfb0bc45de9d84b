/** The drills of stock and money pass on the system as it is, and fail when a guard is removed. */

import { readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { expect } from 'chai';
import { FAILPOINTS } from '../../../proofs/drill/failpoints.js';
import { makeTemporaryFolder, type TemporaryFolder } from '../../../scripts/system/temporary-folder.js';
import { PROJECT_FOLDER } from '../../support/project-copy.js';
import { copyWithout, runDrill } from './run-drill.js';

const TEST_TIMEOUT_MS = 600_000;
/** The line with the steps that can be undone: none after which goods may have left. */
const GUARD_FILE = 'services/payment/saga.ts';
const GUARD_LINE = "export const UNDOABLE: readonly Step[] = ['reserving', 'reserved', 'held'];";

interface Figures {
  readonly rounds: number;
  readonly operations: number;
  readonly lost: number;
  readonly doubled: number;
  readonly oversold: number;
  readonly imbalances: number;
  readonly stuck: number;
  readonly failpoints: Readonly<Record<string, number>>;
  readonly checks: number;
}

const SEED = ['--seed', '7'];
const NOTHING_WRONG = { lost: 0, doubled: 0, oversold: 0, imbalances: 0, stuck: 0 };

describe('npm run drill, stock and money', function () {
  this.timeout(TEST_TIMEOUT_MS);
  let folder: TemporaryFolder;

  before(async () => {
    folder = await makeTemporaryFolder();
  });
  after(() => folder.remove());

  it('kills payment during checkouts, finds no violation, and leaves nothing behind', async () => {
    const temporary = join(folder.path, 'whole');
    const options = [...SEED, '--only', 'checkout', '--rounds', '2', '--faults', 'captured'];
    const { code, output, figures } = await runDrill<Figures>(PROJECT_FOLDER, temporary, options);
    expect(output).to.contain('No violation.');
    expect(code).to.equal(0);
    expect(figures).to.include({ rounds: 2, ...NOTHING_WRONG });
    expect(Object.keys(figures.failpoints)).to.have.members([...FAILPOINTS]);
    expect(Object.values(figures.failpoints).reduce((sum, count) => sum + count, 0)).to.equal(2);
    expect(figures.operations).to.be.at.least(10);
    expect(figures.checks).to.be.at.least(10);
    expect((await readdir(temporary)).filter((name) => name.startsWith('portcullis-'))).to.deep.equal([]);
  });

  it('exits 1 when payment undoes a purchase whose goods may have left', async () => {
    const instead = GUARD_LINE.replace("'held']", "'held', 'committing']");
    const guard = { file: GUARD_FILE, line: GUARD_LINE, instead };
    const copy = await copyWithout(join(folder.path, 'unguarded'), guard);
    const options = [...SEED, '--only', 'checkout', '--rounds', '1', '--faults', 'hand-out:after'];
    const { code, figures } = await runDrill<Figures>(copy, join(folder.path, 'broken'), options);
    expect(code).to.equal(1);
    expect(figures.imbalances).to.be.above(0);
  });

  it('conserves money under a thousand mixed operations by 64 clients', async () => {
    const options = [...SEED, '--only', 'money', '--rounds', '1'];
    const { code, figures } = await runDrill<Figures>(PROJECT_FOLDER, join(folder.path, 'money'), options);
    expect(code).to.equal(0);
    expect(figures).to.include({ operations: 1_000, ...NOTHING_WRONG });
    expect(figures.checks).to.be.at.least(10);
  });
});
