/** A program for tests: starts a process, creates a temporary folder, prints both, and waits to be killed. */

import { launch } from '../../../scripts/system/processes.js';
import { makeTemporaryFolder } from '../../../scripts/system/temporary-folder.js';

const folder = await makeTemporaryFolder();
const { pid } = await launch({
  name: 'sleeper',
  command: '/bin/sh',
  arguments: ['-c', 'exec sleep 600'],
  cwd: '/',
  environment: {},
  logFile: `${folder.path}/sleeper.log`,
});
process.stdout.write(`${JSON.stringify({ pid, temporary: folder.path })}\n`);
setInterval(() => undefined, 1_000);
