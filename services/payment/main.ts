/** Payment as a process. */
import { runMain } from '../common/host/process.js';
import { runPayment } from './compose.js';
import { parseConfig } from './config.js';

await runMain(() => runPayment(parseConfig(process.env)));
