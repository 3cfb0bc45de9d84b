// room: simulate runs the library and the domain of auth
import './world.js';
import '@portcullis/guard/internal';
import '../../services/auth/revocation/log.js';
import '../../services/auth/adapters/revocation-messages.js';
import 'pg'; // refused: noRestrictedImports
import 'nats'; // refused: noRestrictedImports
import '../../interceptors/src/index.js'; // refused: noRestrictedImports
import '../../services/auth/main.js'; // refused: noRestrictedImports
import '../../services/auth/revocation/store.js'; // refused: noRestrictedImports
import '../../services/auth/revocation/instance-store.js'; // refused: noRestrictedImports
import '../../services/inventory/stock.js'; // refused: noRestrictedImports
import '../../test/support/system.js'; // refused: noRestrictedImports
