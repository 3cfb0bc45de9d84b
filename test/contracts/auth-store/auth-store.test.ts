/** The contract of the auth store. */

import { describeAuthStore } from './auth-store.js';
import { openPostgres } from './postgres-store.js';

describeAuthStore('PostgreSQL', openPostgres);
