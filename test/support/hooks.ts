/** Stops the servers that tests share, once, after the last test. */

import './reporter.js';
import { stopNats } from './nats.js';
import { stopPostgres } from './postgres.js';
import { killPrograms } from './programs.js';
import { stopSharedSystem } from './system.js';

/** Runs when every test has ended, passed or not. */
export async function mochaGlobalTeardown(): Promise<void> {
  await killPrograms();
  await stopSharedSystem();
  await stopNats();
  await stopPostgres();
}
