// room: interceptors/src/{errors,clock,limits,log}
import './clock.js'; // refused: noRestrictedImports
import 'node:util'; // refused: noRestrictedImports
import '../gen/google/rpc/status.js'; // refused: noRestrictedImports
