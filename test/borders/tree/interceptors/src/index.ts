// room: interceptors/src/{index,client,engine,internal,testing,tls} are doors
import './errors.js';
import './server/guard.js';
import './internal.js'; // refused: noRestrictedImports
import '../gen/google/rpc/status.js'; // refused: noRestrictedImports
import 'jose'; // refused: noRestrictedImports
