// room: main and compose put one service together
import './compose.js';
import './adapters/broadcast.js';
import './accounts/handlers.js';
import './accounts/store.js';
import '../common/host/closer.js';
import '@portcullis/guard';
import '../../proto/gen/auth/v1/auth_service.js';
import '@portcullis/guard/internal'; // refused: noRestrictedImports
import '../payment/handlers.js'; // refused: noRestrictedImports
