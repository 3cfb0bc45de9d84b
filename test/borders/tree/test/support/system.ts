// room: test/support uses services as processes
import '../../scripts/system/system.js';
import '@portcullis/guard';
import '../../proto/gen/auth/v1/auth_service.js';
import '../../interceptors/src/server/guard.js'; // refused: noRestrictedImports
import '../../services/auth/users.js'; // refused: noRestrictedImports

console.log(process.env['HOME'], Date.now());
