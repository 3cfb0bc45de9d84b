// room: auth/handlers
import './revocations.js';
import '@portcullis/guard';
import '../../../proto/gen/portcullis/revocation/v1/revocation.js';
import './instance-store.js'; // refused: noRestrictedImports
import '../../../proto/gen/payment/v1/payment_service.js'; // refused: noRestrictedImports
import 'nats'; // refused: noRestrictedImports
