/** `npm run build` in a copy of the project, and what the programs of this one are made of. */

import { execFile } from 'node:child_process';
import { existsSync } from 'node:fs';
import { appendFile, readdir, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { expect } from 'chai';
import { makeTemporaryFolder, type TemporaryFolder } from '../../scripts/system/temporary-folder.js';
import { copyProject, PROJECT_FOLDER } from '../support/project-copy.js';

const MAIN = join('dist', 'services', 'inventory', 'main.js');
const SOURCE = join('services', 'inventory', 'main.ts');
const RUN_JS = join('scripts', 'run.js');

describe('npm run build', function () {
  this.timeout(120_000);
  let folder: TemporaryFolder;
  let copy: string;

  before(async () => {
    folder = await makeTemporaryFolder();
    copy = join(folder.path, 'copy');
    await copyProject(copy, { file: SOURCE, from: /$/, to: '\n' });
  });
  after(() => folder.remove());

  async function build(
    ...words: readonly string[]
  ): Promise<{ readonly code: number; readonly errors: string }> {
    try {
      await promisify(execFile)(process.execPath, [RUN_JS, ...words], { cwd: copy });
      return { code: 0, errors: '' };
    } catch (error) {
      const { code, stderr, stdout } = error as { code: number; stderr: string; stdout: string };
      return { code, errors: stderr + stdout };
    }
  }
  async function timeOfMain(): Promise<number> {
    return (await stat(join(copy, MAIN))).mtimeMs;
  }

  it('compiles programs, the package with its types, and copies the files that programs read', async () => {
    expect(await build()).to.deep.equal({ code: 0, errors: '' });
    for (const file of [
      MAIN,
      `${MAIN}.map`,
      join('dist', 'services', 'inventory', 'migrations', '0001-stock.sql'),
      join('dist', 'proto', 'gen', 'image.binpb'),
      join('interceptors', 'dist', 'src', 'index.js'),
      join('interceptors', 'dist', 'src', 'index.d.ts'),
      join('gate', 'dist', 'src', 'index.js'),
      join('gate', 'dist', 'src', 'index.d.ts'),
      join('cli', 'dist', 'src', 'main.js'),
    ]) {
      expect(existsSync(join(copy, file)), file).to.equal(true);
    }
  });

  it('compiles again only when a source has another content, and forgets what was deleted', async () => {
    const before = await timeOfMain();
    const source = await readFile(join(copy, SOURCE), 'utf8');
    await writeFile(join(copy, SOURCE), source);
    await build();
    expect(await timeOfMain()).to.equal(before);

    await appendFile(join(copy, SOURCE), '// Changed.\n');
    await writeFile(join(copy, 'services', 'inventory', 'extra.ts'), 'export const extra = 1;\n');
    await build();
    expect(await timeOfMain()).to.be.greaterThan(before);
    expect(existsSync(join(copy, 'dist', 'services', 'inventory', 'extra.js'))).to.equal(true);
    await rm(join(copy, 'services', 'inventory', 'extra.ts'));
    await build();
    expect(existsSync(join(copy, 'dist', 'services', 'inventory', 'extra.js'))).to.equal(false);
  });

  it('keeps the former output when a source does not compile, and leaves nothing half-built', async () => {
    const before = await timeOfMain();
    const source = await readFile(join(copy, SOURCE), 'utf8');
    await writeFile(join(copy, SOURCE), `${source}\nconst broken = ;\n`);
    const { code, errors } = await build();
    expect(code).to.equal(1);
    expect(errors).to.contain('The sources do not compile').and.to.contain(SOURCE);
    expect(await timeOfMain()).to.equal(before);
    expect((await readdir(copy)).filter((name) => name.startsWith('dist'))).to.deep.equal(['dist']);
    await writeFile(join(copy, SOURCE), source);
  });

  it('needs no compiler when the output is up to date, and says what is missing otherwise', async () => {
    await build();
    await rm(join(copy, 'node_modules', 'typescript'));
    expect((await build()).code).to.equal(0);
    await appendFile(join(copy, SOURCE), '// Changed again.\n');
    const { code, errors } = await build();
    expect(code).to.equal(1);
    expect(errors).to.contain('TypeScript is not installed');
    expect((await build('--if-possible')).code).to.equal(0);
  });
});

describe('the programs of this project', () => {
  it('need no developer tool to run: no import of a compiled file is a development dependency', async () => {
    const manifest = JSON.parse(await readFile(join(PROJECT_FOLDER, 'package.json'), 'utf8')) as {
      devDependencies: Record<string, string>;
    };
    const developers = Object.keys(manifest.devDependencies);
    const found: string[] = [];
    for (const part of ['services', 'scripts']) {
      const root = join(PROJECT_FOLDER, 'dist', part);
      for (const file of await readdir(root, { recursive: true })) {
        if (!file.endsWith('.js')) continue;
        const code = await readFile(join(root, file), 'utf8');
        for (const [, name = ''] of code.matchAll(/(?:from|import\()\s*'([^']+)'/g)) {
          if (developers.some((tool) => name === tool || name.startsWith(`${tool}/`))) {
            found.push(`${part}/${file}: ${name}`);
          }
        }
      }
    }
    expect(found).to.deep.equal([]);
  });
});
