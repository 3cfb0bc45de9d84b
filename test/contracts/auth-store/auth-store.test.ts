/** The contract of the auth store, kept by PostgreSQL and by the simulator. */

import { describeAuthStore } from './auth-store.js';
import { openPostgres } from './postgres-store.js';
import { openSimulation } from './simulated-store.js';

describeAuthStore('PostgreSQL', openPostgres);
describeAuthStore('the simulator', openSimulation);
