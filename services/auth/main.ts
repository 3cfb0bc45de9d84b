/** Auth as a process: reads the environment, and runs the service or the command of an operator. */
import { exitWith, runMain } from '../common/host/run-main.js';

/** Opens a new epoch of the revocation log and exits; the words after it are the reason. */
const OPEN_EPOCH = 'open-epoch';

/** The first word of the reason, for when no key in the database can be decrypted any more, or others can decrypt them. */
const KEY_LOST = '--key-encryption-key-lost';

/** Makes a user an administrator and exits; the word after it is the user's name. */
const RECOVER_ADMIN = 'recover-admin';

await runMain(async () => {
  const [command, ...words] = process.argv.slice(2);
  const { MIGRATE, runMigrations } = await import('../common/host/migrate.js');
  if (command === MIGRATE) {
    const [{ VARIABLES }, { MIGRATIONS }] = await Promise.all([
      import('./config.js'),
      import('./compose.js'),
    ]);
    return runMigrations({ name: 'auth', variables: VARIABLES, migrations: MIGRATIONS, env: process.env });
  }
  const { parseConfig } = await import('./config.js');
  const config = parseConfig(process.env);
  if (command === undefined) {
    const { runAuth } = await import('./compose.js');
    return runAuth(config);
  }
  const { openEpoch, openEpochWithoutKeys, recoverAdmin } = await import('./operator-commands.js');
  if (command === OPEN_EPOCH && words[0] === KEY_LOST) {
    return openEpochWithoutKeys(config, words.slice(1).join(' '));
  }
  if (command === OPEN_EPOCH) return openEpoch(config, words.join(' '));
  if (command === RECOVER_ADMIN) return recoverAdmin(config, words.join(' '));
  return exitWith(
    `unknown command ${command}: expected ${MIGRATE}, ${OPEN_EPOCH} [${KEY_LOST}] REASON, ${RECOVER_ADMIN} USERNAME, or no command to run the service`,
  );
});
