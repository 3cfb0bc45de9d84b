/** `npm run attack` in a short form: no attack succeeds on the system as it is, and one does when a check is removed. */

import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { expect } from 'chai';
import type { TemporaryFolder } from '../../../scripts/system/temporary-folder.js';
import { makeTemporaryFolder } from '../../../scripts/system/temporary-folder.js';
import { runProgram } from '../../support/programs.js';
import { copyProject, PROJECT_FOLDER } from '../../support/project-copy.js';

const TEST_TIMEOUT_MS = 600_000;
const MUTANTS = 3_000;
const MUTANTS_THROUGH_GATES = 500;
/** The place where only canonical base64url is accepted. */
const GUARD_FILE = 'interceptors/src/token/compact.ts';
const GUARD = "return bytes.toString('base64url') === segment ? bytes : undefined;";

interface Figures {
  readonly classes: Readonly<Record<string, Readonly<Record<string, number>>>>;
  readonly tried: number;
  readonly accepted: number;
  readonly crashes: number;
  readonly differing: number;
  readonly complete: boolean;
  readonly seed: number;
  readonly findings: readonly unknown[];
}

describe('npm run attack', function () {
  this.timeout(TEST_TIMEOUT_MS);
  let folder: TemporaryFolder;

  before(async () => {
    folder = await makeTemporaryFolder();
  });

  after(() => folder.remove());

  it('rejects every attack on tokens, access, login and refresh', async () => {
    const { code, output, figures } = await attackIn(PROJECT_FOLDER, ['--mutants', String(MUTANTS)]);
    expect(figures.findings).to.deep.equal([]);
    expect(figures).to.include({ accepted: 0, crashes: 0, differing: 0, complete: true });
    expect(figures.tried).to.be.greaterThan(5 * MUTANTS);
    expect(code).to.equal(0);
    expect(output)
      .to.contain(`Seed ${figures.seed}`)
      .and.to.match(/^total +\d+ +\d+ +0 +0 +0$/m);
    for (const name of ['weak keys of clients', "weak keys in another issuer's key set"]) {
      expect(figures.classes[name]?.['refused'], name).to.be.greaterThan(20);
    }
    const mutants = Object.entries(figures.classes).filter(([name]) => name.startsWith('mutants'));
    expect(mutants.reduce((sum, [, { tried = 0 }]) => sum + tried, 0)).to.equal(MUTANTS);
  });

  it('rejects every attack through gates, with the bytes of the guards', async () => {
    const flags = ['--through', 'gate', '--mutants', String(MUTANTS_THROUGH_GATES)];
    const { code, figures } = await attackIn(PROJECT_FOLDER, flags);
    expect(figures.findings).to.deep.equal([]);
    expect(figures).to.include({ accepted: 0, crashes: 0, differing: 0, complete: true });
    // Most refusals are compared with those of the guards, one by one.
    const compared = figures.classes['gates refuse as guards do']?.['refused'] ?? 0;
    expect(compared).to.be.greaterThan(figures.tried / 3);
    expect(code).to.equal(0);
  });

  it('exits 1 when tokens are accepted in several spellings', async () => {
    const copy = join(folder.path, 'unguarded');
    await copyProject(copy, { file: GUARD_FILE, from: GUARD, to: 'return bytes;' });
    const { code, figures } = await attackIn(copy, ['--part', 'tokens', '--mutants', '100']);
    expect(code).to.equal(1);
    expect(figures.complete).to.equal(true);
    expect(figures.classes['spelling']).to.have.property('accepted').that.is.greaterThan(0);
  });

  async function attackIn(
    cwd: string,
    options: readonly string[],
  ): Promise<{ code: number | null; output: string; figures: Figures }> {
    const json = join(folder.path, 'figures.json');
    const words = ['proofs/attack/main', '--json', json, ...options];
    const { code, stdout } = await runProgram(words, { cwd });
    return { code, output: stdout, figures: JSON.parse(await readFile(json, 'utf8')) as Figures };
  }
});
