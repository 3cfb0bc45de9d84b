/** Payment as a process. */
import { runMain } from '../common/host/run-main.js';

await runMain(async () => {
  const { parseConfig } = await import('./config.js');
  const { runPayment } = await import('./compose.js');
  await runPayment(parseConfig(process.env));
});
