// room: main puts one service together
import './config.js';
import './handlers.js';
import './store.js';
import './adapters/inventory.js';
import 'pg';
import '@grpc/grpc-js';
import '../common/database.js';
import '../../interceptors/index.js';
import '../../interceptors/client.js';
import '../../proto/gen/payment/v1/payment_service.js';
import '../inventory/store.js'; // refused: noRestrictedImports
import '../auth/adapters/broadcast.js'; // refused: noRestrictedImports
import '../../services/inventory/store.js'; // refused: noRestrictedImports
import '../../interceptors/guard.js'; // refused: noRestrictedImports
import '../../scripts/start.js'; // refused: noRestrictedImports
import '../../test/support/system.js'; // refused: noRestrictedImports

export const environment = process.env;
export const started = Date.now(); // refused: plugin
