// room: tls reads certificates
import './credentials.js';
import '../clock.js';
import '../wire/status.js';
import '@grpc/grpc-js';
import '../token/claims.js'; // refused: noRestrictedImports
import '../log.js'; // refused: noRestrictedImports
import '../index.js'; // refused: noRestrictedImports
import 'nats'; // refused: noRestrictedImports
