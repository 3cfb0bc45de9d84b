// room: token verifies tokens
import './strict-json.js';
import '../wire/status.js';
import '../log.js';
import 'jose';
import '../client/token-source.js'; // refused: noRestrictedImports
import '../revocation/feed.js'; // refused: noRestrictedImports
import '../index.js'; // refused: noRestrictedImports
import 'nats'; // refused: noRestrictedImports
