// room: services/common
import './migrations.js';
import '../host/log.js';
import '../money.js';
import 'node:fs/promises';
import 'pg';
import 'pino';
import '@grpc/grpc-js';
import '@portcullis/guard';
import '@portcullis/guard/errors';
import '@portcullis/guard/clock';
import '../../../proto/gen/google/rpc/status.js';
import '../../../proto/gen/grpc/health/v1/health.js';
import '@portcullis/guard/internal'; // refused: noRestrictedImports
import '../../../interceptors/src/revocation/list.js'; // refused: noRestrictedImports
import '../../../proto/gen/auth/v1/auth_service.js'; // refused: noRestrictedImports
import '../../../proto/gen/payment/v1/payment_service.js'; // refused: noRestrictedImports
import '../../auth/accounts/users.js'; // refused: noRestrictedImports
import '../../inventory/store.js'; // refused: noRestrictedImports
import '../../../services/payment/ledger.js'; // refused: noRestrictedImports
import '../../../scripts/start.js'; // refused: noRestrictedImports
import '../../../test/support/system.js'; // refused: noRestrictedImports

export const environment = process.env; // refused: noProcessEnv
