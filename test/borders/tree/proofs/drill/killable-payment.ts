// room: drill/killable runs a service's own compose with a hand around its ports
import './failpoints.js';
import '../../services/payment/compose.js';
import '../../services/payment/config.js';
import '../../services/payment/saga.js';
import '../../services/common/host/run-main.js';
import '@portcullis/guard';
import '../../services/payment/main.js'; // refused: noRestrictedImports
import '../../services/payment/store.js'; // refused: noRestrictedImports
import '../../services/inventory/stock.js'; // refused: noRestrictedImports
import '@portcullis/guard/internal'; // refused: noRestrictedImports
import '../../test/support/system.js'; // refused: noRestrictedImports

export const orders = process.env['DRILL_ORDERS'];
