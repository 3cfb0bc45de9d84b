/** `portcullis`: the command line. */

import { createContextStore } from './contexts.js';
import { runProgram } from './program.js';
import { processStreams } from './terminal.js';

// A reader of the output may leave early, as `head` does.
for (const stream of [process.stdout, process.stderr]) {
  stream.on('error', (error: NodeJS.ErrnoException) => process.exit(error.code === 'EPIPE' ? 0 : 1));
}

process.exitCode = await runProgram({
  terminal: processStreams(process),
  store: createContextStore(process.env),
  words: process.argv.slice(2),
});
