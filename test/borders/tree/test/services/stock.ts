// room: none
import '../../services/inventory/stock.js';
import '../../services/inventory/store.js';
import '../../interceptors/src/server/guard.js';

console.log(process.env['HOME'], Date.now());

describe.only('stock', () => {}); // refused: noFocusedTests
it.skip('is counted', () => {}); // refused: noSkippedTests
