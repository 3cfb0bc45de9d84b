/** `portcullis`: the command line. */

import { createContextStore } from './contexts.js';
import { runProgram } from './program.js';
import { processStreams } from './terminal.js';

// A reader of the output may leave early, as `head` does. A command that handles signals stops what it has started.
for (const stream of [process.stdout, process.stderr]) {
  stream.once('error', (error: NodeJS.ErrnoException) => {
    stream.on('error', () => {});
    if (error.code !== 'EPIPE') process.exit(1);
    if (process.listenerCount('SIGTERM') === 0) process.exit(0);
    process.kill(process.pid, 'SIGTERM');
  });
}

process.exitCode = await runProgram({
  terminal: processStreams(process),
  store: createContextStore(process.env),
  words: process.argv.slice(2),
});
