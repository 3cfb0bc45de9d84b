// room: main puts one service together
import './config.js';
import './store.js';
import './adapters/inventory.js';
import '../common/database.js';
import '../../interceptors/client.js';
import '../inventory/store.js'; // refused: noRestrictedImports
import '../../scripts/start.js'; // refused: noRestrictedImports

export const started = Date.now(); // refused: plugin
