/** In a run of unit tests, starting a process fails, so that no test is misclassified. */

import childProcess from 'node:child_process';
import { syncBuiltinESMExports } from 'node:module';

/** The environment variable that a run of unit tests sets to `none`. */
export const PROCESSES_VARIABLE = 'TEST_PROCESSES';

/** Whether this is a run of unit tests. */
export function isUnitRun(): boolean {
  return process.env[PROCESSES_VARIABLE] === 'none';
}

/** Lets every start of a process fail from now on. */
export function refuseProcesses(): void {
  Object.assign(childProcess, {
    exec: refuse,
    execFile: refuse,
    execFileSync: refuse,
    execSync: refuse,
    fork: refuse,
    spawn: refuse,
    spawnSync: refuse,
  });
  syncBuiltinESMExports();
}

function refuse(): never {
  throw new Error('A unit test starts no process. See test/support/unit-tests.ts.');
}
