// room: services/common/{money,errors} are pure
import '@portcullis/guard/errors';
import 'pg'; // refused: noRestrictedImports
import './database/database.js'; // refused: noRestrictedImports
import '../auth/accounts/users.js'; // refused: noRestrictedImports
