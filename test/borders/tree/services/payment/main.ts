// room: main and compose put one service together
import './config.js';
import './handlers.js';
import './store.js';
import './adapters/inventory.js';
import 'pg';
import '@grpc/grpc-js';
import '../common/database/database.js';
import '@portcullis/guard';
import '@portcullis/guard/client';
import '../../proto/gen/payment/v1/payment_service.js';
import '../inventory/store.js'; // refused: noRestrictedImports
import '../auth/adapters/broadcast.js'; // refused: noRestrictedImports
import '../../services/inventory/store.js'; // refused: noRestrictedImports
import '@portcullis/guard/internal'; // refused: noRestrictedImports
import '../../scripts/start.js'; // refused: noRestrictedImports
import '../../test/support/system.js'; // refused: noRestrictedImports

export const environment = process.env;
export const started = Date.now(); // refused: plugin
