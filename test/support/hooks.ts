/** Compiles what tests run as processes, once, before the first test; stops what they share after the last. */

import { buildIfOutdated } from '../../scripts/build.js';
import './reporter.js';
import { stopNats } from './nats.js';
import { isUnitRun, refuseProcesses } from './no-processes.js';
import { stopPostgres } from './postgres.js';
import { killPrograms } from './programs.js';
import { stopSharedSystem } from './system.js';

if (isUnitRun()) refuseProcesses();

/** Runs before the first test. Unit tests need nothing compiled. */
export async function mochaGlobalSetup(): Promise<void> {
  if (!isUnitRun()) await buildIfOutdated();
}

/** Runs when every test has ended, passed or not. */
export async function mochaGlobalTeardown(): Promise<void> {
  await killPrograms();
  await stopSharedSystem();
  await stopNats();
  await stopPostgres();
}
