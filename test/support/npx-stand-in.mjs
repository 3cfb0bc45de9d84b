/** Runs a program of this project, compiled, as npx runs a command: in a shell that waits for it. */

import { spawn } from 'node:child_process';

const [, , program, ...words] = process.argv;
// Some shells replace themselves by a last command, so there is another one behind it.
spawn('sh', ['-c', `"$0" "$@"; exit $?`, process.execPath, `dist/${program}.js`, ...words], {
  stdio: 'inherit',
});
