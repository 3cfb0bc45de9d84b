// room: interceptors/errors and interceptors/clock
import './clock.js'; // refused: noRestrictedImports
import 'node:util'; // refused: noRestrictedImports
import '../proto/gen/google/rpc/status.js'; // refused: noRestrictedImports
