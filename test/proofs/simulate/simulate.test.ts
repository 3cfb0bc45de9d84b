/** `npm run simulate` as a command: its output, its files and its exit codes. */

import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect } from 'chai';
import { type Ended, runProgram } from '../../support/programs.js';

function simulate(...args: readonly string[]): Promise<Ended> {
  return runProgram(['proofs/simulate/main', ...args]);
}

// Every command starts three processes, which takes long on a busy machine.
const PATIENCE_MS = 300_000;

describe('npm run simulate', function () {
  this.timeout(PATIENCE_MS);
  let folder: string;

  before(async () => {
    folder = await mkdtemp(join(tmpdir(), 'portcullis-simulate-'));
  });

  after(() => rm(folder, { recursive: true, force: true }));

  it('prints its seed, writes its figures and exits 0 when the promise held', async () => {
    const file = join(folder, 'figures.json');
    const { code, stdout: out } = await simulate('--seeds', '30', '--seed', '7', '--json', file);
    expect(out).to.match(/^seed 7, 30 schedules\n/);
    expect(out).to.contain('The promise held.');
    expect(code).to.equal(0);
    const figures = JSON.parse(await readFile(file, 'utf8'));
    expect(figures).to.include({ seeds: 30, first_seed: 7, without: null, violations: 0 });
    for (const name of ['revocations', 'checks', 'max_late_ms'])
      expect(figures[name], name).to.be.greaterThan(0);
    for (const name of ['revoke_to_refused_ms', 'unavailable_ms', 'recovery_ms']) {
      expect(figures[name], name).to.have.all.keys('p50', 'p99', 'max');
    }
    expect(Object.keys(figures.faults)).to.have.length.greaterThan(10);
  });

  it('stops at a violation, prints its trace, and exits 1', async () => {
    const { code, stdout: out } = await simulate(
      '--seeds',
      '500',
      '--seed',
      '1',
      '--without',
      'session-generation',
    );
    expect(code).to.equal(1);
    expect(out).to.match(/VIOLATION \(late\): inventory-\d let pass/);
    const replay = /Replay: npm run simulate -- --seed (\d+) --without session-generation/.exec(out);
    expect(replay).to.not.equal(null);
    const again = await simulate('--seed', replay?.[1] ?? '', '--without', 'session-generation');
    expect(again.code).to.equal(1);
    expect(again.stdout).to.contain(/VIOLATION \(late\): .*/.exec(out)?.[0]);
  });

  it('lists the known guards when it is asked to leave out an unknown one', async () => {
    const { code, stderr: error } = await simulate('--without', 'luck');
    expect(code).to.equal(1);
    expect(error).to.contain('lease-start').and.to.contain('session-generation');
  });
});
