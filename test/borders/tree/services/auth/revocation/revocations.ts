// room: domain code
import './log.js';
import '../keys/keys.js';
import '../records/users.js';
import '../transaction.js';
import '../../common/validation/words.js';
import '../../common/money.js';
import '@portcullis/guard/errors';
import '@portcullis/guard/clock';
import '@portcullis/guard/limits';
import '@portcullis/guard/keys';
import '@portcullis/guard/networks';
import './handlers.js'; // refused: noRestrictedImports
import './store.js'; // refused: noRestrictedImports
import './instance-store.js'; // refused: noRestrictedImports
import '../keys/store.js'; // refused: noRestrictedImports
import '../keys/handlers.js'; // refused: noRestrictedImports
import '../main.js'; // refused: noRestrictedImports
import '../adapters/broadcast.js'; // refused: noRestrictedImports
import '@portcullis/guard'; // refused: noRestrictedImports
import '@portcullis/guard/internal'; // refused: noRestrictedImports
import '../../common/database/database.js'; // refused: noRestrictedImports
import '../../inventory/stock.js'; // refused: noRestrictedImports
import '../../../proto/gen/auth/v1/auth_service.js'; // refused: noRestrictedImports
