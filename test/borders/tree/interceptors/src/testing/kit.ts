// room: testing is the kit for users' own tests
import './serve.js';
import '../errors.js';
import '../clock.js';
import '../server/guard.js';
import '../revocation/feed.js';
import '../token/claims.js';
import 'node:crypto';
import '@grpc/grpc-js';
import '../../gen/portcullis/access/v1/access.js';
import '../testing.js'; // refused: noRestrictedImports
import '../index.js'; // refused: noRestrictedImports
import 'jose'; // refused: noRestrictedImports
import '../../../services/auth/store.js'; // refused: noRestrictedImports
import '../../../test/support/echo.js'; // refused: noRestrictedImports
import 'mocha'; // refused: noRestrictedImports noUndeclaredDependencies

export const wallMs = Date.now; // refused: plugin
