// room: traces runs the sums of the library and the rules of auth
import '../shared/random.js';
import '@portcullis/guard/internal';
import '../../services/auth/security/anomaly-rules.js';
import 'pg'; // refused: noRestrictedImports
import '../../interceptors/src/revocation/feed.js'; // refused: noRestrictedImports
import '../../services/auth/security/store.js'; // refused: noRestrictedImports
import '../../services/inventory/stock.js'; // refused: noRestrictedImports
import '../../test/support/system.js'; // refused: noRestrictedImports
