// room: adapters reach the world outside
import './inventory-channel.js';
import '../checkout.js';
import 'node:http';
import 'nats';
import '@grpc/grpc-js';
import '@portcullis/guard/client';
import '@portcullis/guard';
import '../../../proto/gen/inventory/v1/inventory_service.js';
import '../store.js'; // refused: noRestrictedImports
import '../main.js'; // refused: noRestrictedImports
import '../handlers.js'; // refused: noRestrictedImports
import '../../inventory/stock.js'; // refused: noRestrictedImports
import '../../auth/adapters/broadcast.js'; // refused: noRestrictedImports
import '../../../services/inventory/stock.js'; // refused: noRestrictedImports
import 'pg'; // refused: noRestrictedImports

export const broker = process.env['NATS_URL']; // refused: noProcessEnv
export const sent = performance.now(); // refused: plugin
