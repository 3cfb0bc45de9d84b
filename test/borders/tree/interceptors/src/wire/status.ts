// room: wire is the lowest room of the library
import './connection.js';
import '../errors.js';
import '../../gen/google/rpc/status.js';
import '@grpc/grpc-js';
import '../token/claims.js'; // refused: noRestrictedImports
import '../server/guard.js'; // refused: noRestrictedImports
import 'jose'; // refused: noRestrictedImports
