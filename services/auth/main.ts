/** Auth as a process: reads the environment, and runs the service or the command of an operator. */
import { exitWith, runMain } from '../common/host/run-main.js';

/** Opens a new epoch of the revocation log and exits; the words after it are the reason. */
const OPEN_EPOCH = 'open-epoch';

await runMain(async () => {
  const [command, ...words] = process.argv.slice(2);
  const { parseConfig } = await import('./config.js');
  const config = parseConfig(process.env);
  if (command === undefined) {
    const { runAuth } = await import('./compose.js');
    return runAuth(config);
  }
  if (command === OPEN_EPOCH) {
    const { openEpoch } = await import('./open-epoch.js');
    return openEpoch(config, words.join(' '));
  }
  return exitWith(
    `unknown command ${command}: expected ${OPEN_EPOCH} REASON, or no command to run the service`,
  );
});
