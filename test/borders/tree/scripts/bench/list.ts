// room: bench measures the library, part by part
import './section.js';
import '../system/system.js';
import '../../interceptors/index.js';
import '../../interceptors/revocation-list.js';
import 'nats';
import '../../services/auth/revocations.js'; // refused: noRestrictedImports
import '../../services/common/database.js'; // refused: noRestrictedImports
import '../../test/support/system.js'; // refused: noRestrictedImports

console.log(process.env['HOME'], performance.now());
