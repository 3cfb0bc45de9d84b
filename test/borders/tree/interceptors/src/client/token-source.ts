// room: client attaches and fetches tokens
import '../token/principal.js';
import '../wire/status.js';
import 'jose';
import '../revocation/feed.js'; // refused: noRestrictedImports
import '../reports/report-sender.js'; // refused: noRestrictedImports
import '../client.js'; // refused: noRestrictedImports
import 'nats'; // refused: noRestrictedImports
