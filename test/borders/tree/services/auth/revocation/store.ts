// room: a room's store keeps its domain in PostgreSQL
import './revocations.js';
import '../keys/keys.js';
import '../transaction.js';
import 'pg';
import '../../common/database/database.js';
import '@portcullis/guard/errors';
import './handlers.js'; // refused: noRestrictedImports
import '../main.js'; // refused: noRestrictedImports
import '../adapters/broadcast.js'; // refused: noRestrictedImports
import '@portcullis/guard'; // refused: noRestrictedImports
import '../../inventory/store.js'; // refused: noRestrictedImports
import 'nats'; // refused: noRestrictedImports
