// room: main and compose put one service together
import './config.js';
import './store.js';
import './adapters/inventory.js';
import '../common/database/database.js';
import '@portcullis/guard/client';
import '../inventory/store.js'; // refused: noRestrictedImports
import '../../scripts/start.js'; // refused: noRestrictedImports

export const started = Date.now(); // refused: plugin
