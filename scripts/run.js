/**
 * Runs a program of this project, compiled: `node scripts/run.js scripts/start --free-ports`. Sources that have changed
 * are compiled first. Without a program, it only compiles: `npm run build`.
 */

import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { BuildError, buildIfOutdated, PROJECT_FOLDER } from './build.js';

/** In the place of a program: compile, and do not fail without a compiler. */
const IF_POSSIBLE = '--if-possible';

/** The exit code of a program that SIGPIPE ends. Node ignores this signal, and reports an error of standard output instead. */
const BROKEN_PIPE = 141;

// The reader of a pipe may leave early, as `head` does. A program that handles signals stops what it has started.
process.stdout.once('error', (error) => {
  if (!('code' in error) || error.code !== 'EPIPE') throw error;
  process.stdout.on('error', () => {});
  if (process.listenerCount('SIGTERM') === 0) process.exit(BROKEN_PIPE);
  process.kill(process.pid, 'SIGTERM');
});

const [node = '', , program, ...words] = process.argv;
try {
  await buildIfOutdated();
} catch (error) {
  if (!(error instanceof BuildError)) throw error;
  process.stderr.write(`${error.message}\n`);
  // `npm ci --omit=dev` installs no compiler; its caller brings the compiled programs.
  process.exit(program === IF_POSSIBLE ? 0 : 1);
}
if (program !== undefined && program !== IF_POSSIBLE) {
  const path = join(PROJECT_FOLDER, 'dist', `${program}.js`);
  process.argv = [node, path, ...words];
  process.setSourceMapsEnabled(true);
  await import(pathToFileURL(path).href);
}
