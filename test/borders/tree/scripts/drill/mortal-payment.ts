// room: drill/mortal runs a service's own assembly with a hand around its ports
import './failpoints.js';
import '../../services/payment/assembly.js';
import '../../services/payment/config.js';
import '../../services/payment/checkout.js';
import '../../services/common/process.js';
import '../../interceptors/index.js';
import '../../services/payment/main.js'; // refused: noRestrictedImports
import '../../services/payment/store.js'; // refused: noRestrictedImports
import '../../services/inventory/stock.js'; // refused: noRestrictedImports
import '../../interceptors/guard.js'; // refused: noRestrictedImports
import '../../test/support/system.js'; // refused: noRestrictedImports

export const orders = process.env['DRILL_ORDERS'];
