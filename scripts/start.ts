/** `npm start`: runs the whole system. */

import { DATA_FOLDER_DEFAULT } from './system/project.js';
import { runStart } from './system/start-command.js';
import { SystemError } from './system/system-error.js';

try {
  await runStart({
    command: 'npm start',
    words: process.argv.slice(2),
    dataFolder: DATA_FOLDER_DEFAULT,
    otherVariables: [],
    examples: 'buf',
  });
} catch (error) {
  console.error(
    `\n${error instanceof SystemError ? error.message : (error instanceof Error && error.stack) || error}`,
  );
  process.exitCode = 1;
}
