// room: revocation follows the log
import './list.js';
import '../client/token-source.js';
import '../token/claims.js';
import '../../gen/portcullis/revocation/v1/revocation.js';
import 'nats';
import '../server/guard.js'; // refused: noRestrictedImports
import '../reports/report-sender.js'; // refused: noRestrictedImports
import '../../../proto/gen/portcullis/revocation/v1/revocation.js'; // refused: noRestrictedImports
