/** Payment as a process: runs the service, or the command that migrates its database. */
import { exitWith, runMain } from '../common/host/run-main.js';

await runMain(async () => {
  const [command] = process.argv.slice(2);
  if (command === undefined) {
    const { parseConfig } = await import('./config.js');
    const { runPayment } = await import('./compose.js');
    return await runPayment(parseConfig(process.env));
  }
  const { MIGRATE, runMigrations } = await import('../common/host/migrate.js');
  if (command !== MIGRATE)
    exitWith(`unknown command ${command}: expected ${MIGRATE}, or no command to run the service`);
  const [{ VARIABLES }, { MIGRATIONS }] = await Promise.all([import('./config.js'), import('./compose.js')]);
  return await runMigrations({
    name: 'payment',
    variables: VARIABLES,
    migrations: MIGRATIONS,
    env: process.env,
  });
});
