// room: traces runs the sums of the library and the rules of auth
import '../drill/random.js';
import '../../interceptors/security-reports.js';
import '../../services/auth/anomaly-rules.js';
import 'pg'; // refused: noRestrictedImports
import '../../interceptors/feed.js'; // refused: noRestrictedImports
import '../../services/auth/security-store.js'; // refused: noRestrictedImports
import '../../services/inventory/stock.js'; // refused: noRestrictedImports
import '../../test/support/system.js'; // refused: noRestrictedImports
