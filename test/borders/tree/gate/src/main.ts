// room: gate is a package of its own
import '@portcullis/guard';
import '@portcullis/guard/errors';
import '@portcullis/guard/internal'; // refused: noRestrictedImports
import '@portcullis/guard/testing'; // refused: noRestrictedImports
import '../../interceptors/src/server/guard.js'; // refused: noRestrictedImports
import '../../services/common/host/log.js'; // refused: noRestrictedImports
import '../../scripts/start.js'; // refused: noRestrictedImports
import '../../proto/gen/auth/v1/auth_service.js'; // refused: noRestrictedImports
import 'execa'; // refused: noUndeclaredDependencies

export const started = Date.now(); // refused: plugin
