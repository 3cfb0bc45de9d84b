// room: server is the highest room of the library
import './admission.js';
import '../errors.js';
import '../limits.js';
import '../revocation/feed.js';
import '../reports/report-sender.js';
import '../client/token-source.js';
import '../token/claims.js';
import '../wire/status.js';
import 'node:crypto';
import 'node:timers/promises';
import '@grpc/grpc-js';
import '../../gen/portcullis/access/v1/access.js';
import '../../gen/google/rpc/status.js';
import '../index.js'; // refused: noRestrictedImports
import 'jose'; // refused: noRestrictedImports
import 'nats'; // refused: noRestrictedImports
import '../../../proto/gen/auth/v1/auth_service.js'; // refused: noRestrictedImports
import '../../../proto/gen/grpc/health/v1/health.js'; // refused: noRestrictedImports
import '../../../services/common/host/log.js'; // refused: noRestrictedImports
import '../../../services/auth/store.js'; // refused: noRestrictedImports
import '../../../scripts/tour.js'; // refused: noRestrictedImports
import '../../../test/support/system.js'; // refused: noRestrictedImports
import 'pg'; // refused: noRestrictedImports noUndeclaredDependencies
import 'pino'; // refused: noRestrictedImports noUndeclaredDependencies
import 'zod'; // refused: noRestrictedImports noUndeclaredDependencies
export type { Pool } from 'pg'; // refused: noRestrictedImports noUndeclaredDependencies
export * from '../../../services/auth/accounts/users.js'; // refused: noRestrictedImports

export const lazily = () => import('pg'); // refused: noRestrictedImports noUndeclaredDependencies
export type Hidden = import('pg').Pool; // refused: plugin

export const environment = process.env['PORTCULLIS_LISTEN']; // refused: noProcessEnv
export const wallMs = Date.now; // refused: plugin
