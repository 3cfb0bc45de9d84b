// room: inventory/handlers
import './stock.js';
import 'node:crypto';
import '@grpc/grpc-js';
import '@portcullis/guard';
import '../../proto/gen/inventory/v1/inventory_service.js';
import '../../proto/gen/portcullis/type/v1/money.js';
import '../../proto/gen/google/protobuf/timestamp.js';
import './store.js'; // refused: noRestrictedImports
import './item-store.js'; // refused: noRestrictedImports
import './main.js'; // refused: noRestrictedImports
import './config.js'; // refused: noRestrictedImports
import './adapters/broadcast.js'; // refused: noRestrictedImports
import '../payment/ledger.js'; // refused: noRestrictedImports
import '../common/database/database.js'; // refused: noRestrictedImports
import '../../services/payment/ledger.js'; // refused: noRestrictedImports
import '@portcullis/guard/internal'; // refused: noRestrictedImports
import '../../proto/gen/payment/v1/payment_service.js'; // refused: noRestrictedImports
import '../../proto/gen/auth/v1/auth_service.js'; // refused: noRestrictedImports
import 'nats'; // refused: noRestrictedImports
import 'pg'; // refused: noRestrictedImports

export const environment = process.env; // refused: noProcessEnv
export const now = (): number => Date.now(); // refused: plugin
