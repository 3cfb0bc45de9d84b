// room: scripts and proofs use services as processes
import './system/system.js';
import 'execa'; // refused: noUndeclaredDependencies
import 'pg';
import '@portcullis/guard/client';
import '@portcullis/guard';
import '../proto/gen/auth/v1/auth_service.js';
import '../interceptors/src/server/guard.js'; // refused: noRestrictedImports
import '../services/auth/accounts/users.js'; // refused: noRestrictedImports
import '../services/common/database/database.js'; // refused: noRestrictedImports
import '../test/support/system.js'; // refused: noRestrictedImports

console.log(process.env['HOME'], Date.now());
