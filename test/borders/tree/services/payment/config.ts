// room: config turns the environment into values
import 'node:path';
import 'zod';
import '../common/config/env.js';
import './ledger.js';
import './main.js'; // refused: noRestrictedImports
import './store.js'; // refused: noRestrictedImports
import './item-store.js'; // refused: noRestrictedImports
import './handlers.js'; // refused: noRestrictedImports
import './adapters/inventory.js'; // refused: noRestrictedImports
import '../auth/config.js'; // refused: noRestrictedImports
import '@portcullis/guard'; // refused: noRestrictedImports
import '@grpc/grpc-js'; // refused: noRestrictedImports
import 'pg'; // refused: noRestrictedImports

export const listen = process.env['PORTCULLIS_LISTEN']; // refused: noProcessEnv
