/** The command `migrate` of a service: brings its database to the newest migration, and exits. */
import type { EnvironmentShape } from '../config/env.js';
import { parseMigrationConfig } from '../config/service-config.js';
import { migrateDatabase } from '../database/database.js';
import { createLog, flushLog } from './log.js';
import { OperatorError } from './operator-error.js';
import { takeOverSignals } from './run-main.js';

/** The word on the command line that runs it. */
export const MIGRATE = 'migrate';

/**
 * Migrates the database of a service. A signal stops it between two migrations, which is a failure: whoever waits for the
 * command must not take the database for migrated.
 *
 * @param service.variables - all variables that the service reads
 * @throws ConfigurationError, MigrationError, or an OperatorError after a signal
 */
export async function runMigrations(service: {
  readonly name: string;
  readonly variables: EnvironmentShape;
  readonly migrations: URL;
  readonly env: NodeJS.ProcessEnv;
}): Promise<void> {
  const { name, variables, migrations, env } = service;
  const config = parseMigrationConfig(variables, env);
  const log = createLog({ service: name, ...config.log });
  const stopping = new AbortController();
  const stop = (signal: NodeJS.Signals) =>
    stopping.abort(new OperatorError(`${MIGRATE} was stopped by ${signal}; run it again`));
  takeOverSignals();
  for (const signal of ['SIGTERM', 'SIGINT'] as const) process.on(signal, stop);
  await migrateDatabase({ url: config.url, migrations, log, signal: stopping.signal });
  log.info('the database is migrated');
  await flushLog(log);
}
