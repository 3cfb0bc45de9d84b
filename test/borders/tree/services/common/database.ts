// room: services/common
import './log.js';
import 'node:fs/promises';
import 'pg';
import 'pino';
import '@grpc/grpc-js';
import '../../interceptors/index.js';
import '../../interceptors/errors.js';
import '../../interceptors/clock.js';
import '../../proto/gen/google/rpc/status.js';
import '../../proto/gen/grpc/health/v1/health.js';
import '../../interceptors/revocation-list.js'; // refused: noRestrictedImports
import '../../proto/gen/auth/v1/auth_service.js'; // refused: noRestrictedImports
import '../../proto/gen/payment/v1/payment_service.js'; // refused: noRestrictedImports
import '../auth/users.js'; // refused: noRestrictedImports
import '../inventory/store.js'; // refused: noRestrictedImports
import '../../services/payment/ledger.js'; // refused: noRestrictedImports
import '../../scripts/start.js'; // refused: noRestrictedImports
import '../../test/support/system.js'; // refused: noRestrictedImports

export const environment = process.env; // refused: noProcessEnv
