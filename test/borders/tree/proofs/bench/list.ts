// room: bench measures the library, part by part
import './section.js';
import '../../scripts/system/system.js';
import '@portcullis/guard';
import '@portcullis/guard/internal';
import 'nats';
import '../../interceptors/src/revocation/list.js'; // refused: noRestrictedImports
import '../../services/auth/revocation/revocations.js'; // refused: noRestrictedImports
import '../../services/common/database/database.js'; // refused: noRestrictedImports
import '../../test/support/system.js'; // refused: noRestrictedImports

console.log(process.env['HOME'], performance.now());
