// room: scripts use services as processes
import './system/system.js';
import 'execa'; // refused: noUndeclaredDependencies
import 'pg';
import '../interceptors/client.js';
import '../interceptors/index.js';
import '../proto/gen/auth/v1/auth_service.js';
import '../interceptors/guard.js'; // refused: noRestrictedImports
import '../services/auth/users.js'; // refused: noRestrictedImports
import '../services/common/database.js'; // refused: noRestrictedImports
import '../test/support/system.js'; // refused: noRestrictedImports

console.log(process.env['HOME'], Date.now());
