// room: payment/handlers
import './ledger.js';
import '@portcullis/guard';
import '../../proto/gen/payment/v1/payment_service.js';
import '../../proto/gen/inventory/v1/inventory_service.js'; // refused: noRestrictedImports
import './adapters/inventory.js'; // refused: noRestrictedImports
import '../auth/accounts/users.js'; // refused: noRestrictedImports
import 'nats'; // refused: noRestrictedImports
