/** Auth as a process: reads the environment, and runs the service or the command of an operator. */

import { exitWith, runMain } from '../common/host/process.js';
import { runAuth } from './compose.js';
import { parseConfig } from './config.js';
import { openEpoch, recoverAdmin } from './operator-commands.js';

/** Opens a new epoch of the revocation log and exits; the words after it are the reason. */
const OPEN_EPOCH = 'open-epoch';

/** Makes a user an administrator and exits; the word after it is the user's name. */
const RECOVER_ADMIN = 'recover-admin';

await runMain(async () => {
  const [command, ...words] = process.argv.slice(2);
  const config = parseConfig(process.env);
  if (command === undefined) return runAuth(config);
  if (command === OPEN_EPOCH) return openEpoch(config, words.join(' '));
  if (command === RECOVER_ADMIN) return recoverAdmin(config, words.join(' '));
  return exitWith(
    `unknown command ${command}: expected ${OPEN_EPOCH} REASON, ${RECOVER_ADMIN} USERNAME, or no command to run the service`,
  );
});
