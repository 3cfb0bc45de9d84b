/** Inventory as a process. */
import { runMain } from '../common/host/run-main.js';

await runMain(async () => {
  const { parseConfig } = await import('./config.js');
  const { runInventory } = await import('./compose.js');
  await runInventory(parseConfig(process.env));
});
