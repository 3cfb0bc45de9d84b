/** Inventory as a process. */
import { runMain } from '../common/host/process.js';
import { runInventory } from './compose.js';
import { parseConfig } from './config.js';

await runMain(() => runInventory(parseConfig(process.env)));
