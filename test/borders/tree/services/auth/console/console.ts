// room: auth/console
import './html.js';
import '../../common/host/http-port.js';
import '@portcullis/guard/client';
import '../../../proto/gen/auth/v1/user_service.js';
import '@grpc/grpc-js';
import '../revocation/revocations.js'; // refused: noRestrictedImports
import '../revocation/handlers.js'; // refused: noRestrictedImports
import '../store.js'; // refused: noRestrictedImports
import '@portcullis/guard'; // refused: noRestrictedImports
import 'pg'; // refused: noRestrictedImports
