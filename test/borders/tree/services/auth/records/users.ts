// room: auth/records
import './sessions.js';
import '@portcullis/guard/errors';
import '@portcullis/guard/limits';
import '../accounts/users.js'; // refused: noRestrictedImports
import '../accounts/store.js'; // refused: noRestrictedImports
import '../transaction.js'; // refused: noRestrictedImports
import '../errors.js'; // refused: noRestrictedImports
import '../../common/validation/paging.js'; // refused: noRestrictedImports
import '@portcullis/guard'; // refused: noRestrictedImports
import '@portcullis/guard/clock'; // refused: noRestrictedImports
import '../../../proto/gen/auth/v1/auth_service.js'; // refused: noRestrictedImports
import 'node:crypto'; // refused: noRestrictedImports
import 'pg'; // refused: noRestrictedImports
