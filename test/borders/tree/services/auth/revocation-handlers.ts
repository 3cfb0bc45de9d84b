// room: auth/handlers
import './handlers.js';
import './revocations.js';
import '../../interceptors/index.js';
import '../../proto/gen/portcullis/revocation/v1/revocation.js';
import './revocation-store.js'; // refused: noRestrictedImports
import '../../proto/gen/payment/v1/payment_service.js'; // refused: noRestrictedImports
import 'nats'; // refused: noRestrictedImports
