/** `portcullis start`: its flags, and how it finds the system. `npm run package` runs the system from the packages. */

import { existsSync } from 'node:fs';
import { mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';
import { expect } from 'chai';
import { findSystem, START_FLAGS } from '../../cli/src/commands/start.js';
import { CommandError, EXIT } from '../../cli/src/failures.js';
import { PORT_FLAGS } from '../../scripts/system/system-ports.js';
import { makeTemporaryFolder, type TemporaryFolder } from '../../scripts/system/temporary-folder.js';
import { PROJECT_FOLDER } from '../support/project-copy.js';
import { createCliRunner } from './cli-runner.js';

describe('portcullis start', () => {
  let folder: TemporaryFolder;

  beforeEach(async () => {
    folder = await makeTemporaryFolder();
  });
  afterEach(() => folder.remove());

  it('has the flags and the ports of npm start', () => {
    expect(START_FLAGS).to.deep.equal(PORT_FLAGS.map(({ flag, what, port }) => ({ flag, what, port })));
  });

  it('finds the system in the clone', () => {
    const found = fileURLToPath(findSystem());
    expect(found).to.equal(join(PROJECT_FOLDER, 'dist', 'scripts', 'system', 'start-command.js'));
    expect(existsSync(found)).to.equal(true);
  });

  it('finds the system that is installed beside the command line', async () => {
    const modules = await installSystem('0.1.0');
    const installed = join(modules, '@portcullis', 'system', 'start.js');
    expect(findSystem(pathToFileURL(`${modules}/`))).to.deep.equal(pathToFileURL(installed));
  });

  it('says what to install when the package of the system is missing', () => {
    expect(failureOf(`${folder.path}/node_modules/`)).to.deep.equal({
      exitCode: EXIT.failed,
      message:
        'portcullis start needs the package @portcullis/system, which is not installed beside portcullis.\n' +
        'Install it with npm install @portcullis/system@0.1.0',
    });
  });

  it('says what to install when the package of the system is of another version', async () => {
    const modules = await installSystem('0.2.0');
    expect(failureOf(`${modules}/`)).to.deep.equal({
      exitCode: EXIT.failed,
      message:
        'portcullis start 0.1.0 needs version 0.1.0 of @portcullis/system, and 0.2.0 is installed.\n' +
        'Install it with npm install @portcullis/system@0.1.0',
    });
  });

  it('rejects a port that does not exist', async () => {
    const run = createCliRunner(join(folder.path, 'contexts.json'));
    const { code, err } = await run(['start', '--auth-port', '65536']);
    expect(code).to.equal(EXIT.usage);
    expect(err).to.contain('Expected a port from 1 to 65535.');
  });

  it('completes its flags', async () => {
    const run = createCliRunner(join(folder.path, 'contexts.json'));
    const { out } = await run(['complete-words', '--', 'start']);
    expect(out.split('\n')).to.include.members(['--free-ports', ...START_FLAGS.map(({ flag }) => flag)]);
  });

  /** @returns the folder of the packages */
  async function installSystem(version: string): Promise<string> {
    const modules = join(folder.path, 'node_modules');
    const system = join(modules, '@portcullis', 'system');
    await mkdir(system, { recursive: true });
    const exports = { './start': './start.js', './package.json': './package.json' };
    await writeFile(
      join(system, 'package.json'),
      JSON.stringify({ name: '@portcullis/system', version, exports }),
    );
    await writeFile(join(system, 'start.js'), '');
    return modules;
  }
});

function failureOf(
  surroundings: string,
): { readonly exitCode: number; readonly message: string } | undefined {
  try {
    findSystem(pathToFileURL(surroundings));
    return undefined;
  } catch (error) {
    if (!(error instanceof CommandError)) throw error;
    return { exitCode: error.exitCode, message: error.message };
  }
}
