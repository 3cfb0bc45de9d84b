// room: auth/handlers
import './users.js';
import '../sessions/sessions.js';
import '@portcullis/guard';
import '@portcullis/guard/networks';
import '../../../proto/gen/auth/v1/auth_service.js';
import '../../../proto/gen/portcullis/token/v1/token.js';
import '../../common/validation/paging.js';
import './store.js'; // refused: noRestrictedImports
import '../sessions/store.js'; // refused: noRestrictedImports
import '../main.js'; // refused: noRestrictedImports
import '../adapters/broadcast.js'; // refused: noRestrictedImports
import '@portcullis/guard/internal'; // refused: noRestrictedImports
import '../../../proto/gen/inventory/v1/inventory_service.js'; // refused: noRestrictedImports
import '../../inventory/stock.js'; // refused: noRestrictedImports
import '../../common/database/database.js'; // refused: noRestrictedImports
import 'pg'; // refused: noRestrictedImports
