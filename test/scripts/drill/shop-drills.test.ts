/** The drills of stock and money hold against the system as it is, and fail when a guard is taken out. */

import { execFile } from 'node:child_process';
import { cp, mkdir, readdir, readFile, symlink, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { expect } from 'chai';
import { FAILPOINTS } from '../../../scripts/drill/failpoints.js';
import { makeTemporaryFolder, type TemporaryFolder } from '../../../scripts/system/temporary-folder.js';

const TEST_TIMEOUT_MS = 180_000;
const PROJECT_FOLDER = fileURLToPath(new URL('../../..', import.meta.url));
/** What can still be undone: nothing that may have handed out goods. */
const GUARD_FILE = 'services/payment/checkout.ts';
const GUARD_LINE = "const UNDOABLE: readonly Step[] = ['reserving', 'reserved', 'held'];";

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

const NOTHING_WRONG = { lost: 0, doubled: 0, oversold: 0, imbalances: 0, stuck: 0 };

describe('npm run drill, stock and money', function () {
  this.timeout(TEST_TIMEOUT_MS);
  let folder: TemporaryFolder;

  before(async () => {
    folder = await makeTemporaryFolder();
  });
  after(() => folder.remove());

  it('kills payment in the middle of checkouts, finds nothing wrong, and leaves nothing behind', async () => {
    const temporary = join(folder.path, 'whole');
    const options = ['--only', 'checkout', '--rounds', '2', '--faults', 'captured'];
    const { code, output, figures } = await drill(PROJECT_FOLDER, temporary, options);
    expect(output).to.contain('No violation.');
    expect(code).to.equal(0);
    expect(figures).to.include({ rounds: 2, ...NOTHING_WRONG });
    expect(Object.keys(figures.failpoints)).to.have.members([...FAILPOINTS]);
    expect(Object.values(figures.failpoints).reduce((sum, count) => sum + count, 0)).to.equal(2);
    expect(figures.operations).to.be.at.least(10);
    expect(figures.checks).to.be.at.least(10);
    expect((await readdir(temporary)).filter((name) => name.startsWith('portcullis-'))).to.deep.equal([]);
  });

  it('exits 1 when payment undoes what may have handed out goods', async () => {
    const copy = join(folder.path, 'unguarded');
    for (const part of ['package.json', 'tsconfig.json', 'interceptors', 'services', 'scripts', 'proto']) {
      await cp(join(PROJECT_FOLDER, part), join(copy, part), { recursive: true });
    }
    await symlink(join(PROJECT_FOLDER, 'node_modules'), join(copy, 'node_modules'));
    const file = join(copy, GUARD_FILE);
    const source = await readFile(file, 'utf8');
    expect(source.split(GUARD_LINE)).to.have.lengthOf(2);
    await writeFile(file, source.replace(GUARD_LINE, GUARD_LINE.replace("'held']", "'held', 'committing']")));
    const options = ['--only', 'checkout', '--rounds', '1', '--faults', 'hand-out:after'];
    const { code, figures } = await drill(copy, join(folder.path, 'broken'), options);
    expect(code).to.equal(1);
    expect(figures.imbalances).to.be.above(0);
  });

  it('conserves money under a thousand mixed operations by 64 clients', async () => {
    const options = ['--only', 'money', '--rounds', '1'];
    const { code, figures } = await drill(PROJECT_FOLDER, join(folder.path, 'money'), options);
    expect(code).to.equal(0);
    expect(figures).to.include({ operations: 1_000, ...NOTHING_WRONG });
    expect(figures.checks).to.be.at.least(10);
  });
});

async function drill(
  cwd: string,
  temporary: string,
  options: readonly string[],
): Promise<{ code: number; output: string; figures: Figures }> {
  await mkdir(temporary, { recursive: true, mode: 0o711 });
  const json = join(temporary, 'figures.json');
  const { HOME, PATH, XDG_CACHE_HOME } = process.env;
  const program = ['--import', 'tsx', 'scripts/drill.ts', '--seed', '7', '--json', json];
  const running = promisify(execFile)(process.execPath, [...program, ...options], {
    cwd,
    env: { HOME, PATH, XDG_CACHE_HOME, TMPDIR: temporary },
  });
  const ended = await running.then(
    ({ stdout }) => ({ code: 0, output: stdout }),
    (error: unknown) => {
      if (!(error instanceof Error && 'code' in error && 'stdout' in error)) throw error;
      return { code: Number(error.code), output: String(error.stdout) };
    },
  );
  return { ...ended, figures: JSON.parse(await readFile(json, 'utf8')) as Figures };
}
