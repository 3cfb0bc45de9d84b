/** Compiles what tests run as processes, once, before the first test; stops what they share after the last. */

import { buildIfOutdated } from '../../scripts/build.js';
import './reporter.js';
import { stopNats } from './nats.js';
import { stopPostgres } from './postgres.js';
import { killPrograms } from './programs.js';
import { stopSharedSystem } from './system.js';

/** Runs before the first test. */
export async function mochaGlobalSetup(): Promise<void> {
  await buildIfOutdated();
}

/** Runs when every test has ended, passed or not. */
export async function mochaGlobalTeardown(): Promise<void> {
  await killPrograms();
  await stopSharedSystem();
  await stopNats();
  await stopPostgres();
}
