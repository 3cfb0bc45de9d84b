// room: auth/handlers
import './users.js';
import '../../interceptors/index.js';
import '../../proto/gen/auth/v1/auth_service.js';
import '../../proto/gen/portcullis/token/v1/token.js';
import './store.js'; // refused: noRestrictedImports
import '../../proto/gen/inventory/v1/inventory_service.js'; // refused: noRestrictedImports
import '../inventory/stock.js'; // refused: noRestrictedImports
import 'pg'; // refused: noRestrictedImports
