/** Payment as a process. */
import { runMain } from '../common/process.js';
import { runPayment } from './assembly.js';
import { parseConfig } from './config.js';

await runMain(() => runPayment(parseConfig(process.env)));
