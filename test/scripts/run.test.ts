/** The programs of this project, as `npm run` starts them. */

import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { text } from 'node:stream/consumers';
import { expect } from 'chai';
import { makeTemporaryFolder, type TemporaryFolder } from '../../scripts/system/temporary-folder.js';
import { PROJECT_FOLDER } from '../support/project-copy.js';

/** What a shell reports for a program that SIGPIPE has ended. */
const BROKEN_PIPE = 141;

describe('a program whose output is not read to the end', () => {
  let folder: TemporaryFolder;
  before(async () => {
    folder = await makeTemporaryFolder();
  });
  after(() => folder.remove());

  it('ends at once, without a message', async () => {
    const tokenFile = join(folder.path, 'token');
    await writeFile(tokenFile, 'x.y.z');
    // It prints a line, and then waits for an answer that nothing sends.
    const words = ['scripts/run.js', 'scripts/review', '--address', '127.0.0.1:1', '--token-file', tokenFile];
    const child = spawn(process.execPath, words, { cwd: PROJECT_FOLDER, stdio: ['ignore', 'pipe', 'pipe'] });
    child.stdout.destroy();
    const [messages, [code]] = await Promise.all([text(child.stderr), once(child, 'exit')]);
    expect({ code, messages }).to.deep.equal({ code: BROKEN_PIPE, messages: '' });
  });
});
