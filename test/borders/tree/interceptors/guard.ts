// room: interceptors is a library
import './errors.js';
import './revocation-list.js';
import 'node:crypto';
import 'node:timers/promises';
import '@grpc/grpc-js';
import 'jose';
import 'nats';
import '../proto/gen/portcullis/access/v1/access.js';
import '../proto/gen/google/rpc/status.js';
import '../proto/gen/auth/v1/auth_service.js'; // refused: noRestrictedImports
import '../proto/gen/inventory/v1/inventory_service.js'; // refused: noRestrictedImports
import '../proto/gen/grpc/health/v1/health.js'; // refused: noRestrictedImports
import '../services/common/log.js'; // refused: noRestrictedImports
import '../services/auth/store.js'; // refused: noRestrictedImports
import '../scripts/tour.js'; // refused: noRestrictedImports
import '../test/support/system.js'; // refused: noRestrictedImports
import 'pg'; // refused: noRestrictedImports
import 'pino'; // refused: noRestrictedImports
import 'zod'; // refused: noRestrictedImports
export type { Pool } from 'pg'; // refused: noRestrictedImports
export * from '../services/auth/users.js'; // refused: noRestrictedImports

export const lazily = () => import('pg'); // refused: noRestrictedImports
export type Hidden = import('pg').Pool; // refused: plugin

export const environment = process.env['PORTCULLIS_LISTEN']; // refused: noProcessEnv
