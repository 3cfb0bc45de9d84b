// room: store keeps its domain in PostgreSQL
import './stock.js';
import './store.js';
import 'node:crypto';
import 'pg';
import '../common/database/database.js';
import '@portcullis/guard/errors';
import './handlers.js'; // refused: noRestrictedImports
import './main.js'; // refused: noRestrictedImports
import './config.js'; // refused: noRestrictedImports
import '../payment/store.js'; // refused: noRestrictedImports
import '@portcullis/guard'; // refused: noRestrictedImports
import '../../proto/gen/inventory/v1/inventory_service.js'; // refused: noRestrictedImports
import '@grpc/grpc-js'; // refused: noRestrictedImports
