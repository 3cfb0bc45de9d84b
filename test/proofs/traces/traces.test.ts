/** `npm run traces` finds every planted attack with the rules as they are, and reports what changed rules get wrong. */

import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { expect } from 'chai';
import { RECORDING } from '../../../proofs/traces/recording.js';
import type { TemporaryFolder } from '../../../scripts/system/temporary-folder.js';
import { makeTemporaryFolder } from '../../../scripts/system/temporary-folder.js';
import { runProgram } from '../../support/programs.js';
import { copyProject, PROJECT_FOLDER } from '../../support/project-copy.js';

const RULES_FILE = 'services/auth/security/anomaly-rules.ts';

interface Figures {
  readonly ordinary_calls: number;
  readonly false_alarms: number;
  readonly planted: number;
  readonly found: number;
}

describe('npm run traces', function () {
  this.timeout(180_000);
  let folder: TemporaryFolder;

  before(async () => {
    folder = await makeTemporaryFolder();
  });

  after(() => folder.remove());

  it('finds every planted attack once, and none in ordinary traffic', async () => {
    const { code, output, figures } = await tracesIn(PROJECT_FOLDER);
    expect(Object.keys(figures)).to.deep.equal(['ordinary_calls', 'false_alarms', 'planted', 'found']);
    expect(figures.ordinary_calls).to.be.at.least(100_000);
    expect(figures).to.include({ false_alarms: 0, planted: 41, found: 41 });
    expect(output).to.match(/^far-above-usual +5 +5 +0 +0$/m);
    expect(code).to.equal(0);
  });

  it('reports the attacks that a rule with a high threshold misses', async () => {
    const { code, output, figures } = await tracesWith(
      "'revoked-token-hammered': { count: 50,",
      "'revoked-token-hammered': { count: 5000,",
    );
    expect(code).to.equal(1);
    expect(figures).to.include({ planted: 41, found: 35, false_alarms: 0 });
    expect(output).to.match(/^MISSED revoked-token-hammered \S+$/m);
  });

  it('reports the false alarms of a rule with a low threshold', async () => {
    const { code, output, figures } = await tracesWith(
      "'session-in-many-networks': { count: 4,",
      "'session-in-many-networks': { count: 2,",
    );
    expect(code).to.equal(1);
    expect(figures.false_alarms).to.be.greaterThan(0);
    expect(output).to.match(/^FALSE ALARM session-in-many-networks \{.*\}$/m);
  });

  it('reports the false alarms of rules without a cool-down time', async () => {
    const { code, figures } = await tracesWith(
      'const isNew = nowMs - memory.unusualMs >= quietSeconds * 1000;',
      'const isNew = true || quietSeconds > 0;',
    );
    expect(code).to.equal(1);
    expect(figures.false_alarms).to.be.greaterThan(100);
  });

  it('replays a recording that contains no token', async () => {
    const recording = await readFile(RECORDING, 'utf8');
    expect(recording).to.not.match(/eyJ|pcr_|PRIVATE KEY|Bearer/);
  });

  /** Runs the traces on a copy of the code with one changed line in the rules. */
  async function tracesWith(from: string, to: string): Promise<Outcome> {
    const copy = join(folder.path, String(performance.now()));
    await copyProject(copy, { file: RULES_FILE, from, to });
    return await tracesIn(copy);
  }

  async function tracesIn(cwd: string): Promise<Outcome> {
    const json = join(folder.path, 'figures.json');
    const { code, stdout } = await runProgram(['proofs/traces/main', '--json', json], { cwd });
    return { code, output: stdout, figures: JSON.parse(await readFile(json, 'utf8')) as Figures };
  }
});

interface Outcome {
  readonly code: number | null;
  readonly output: string;
  readonly figures: Figures;
}
