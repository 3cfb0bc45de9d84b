// room: reports sends what an instance has seen
import '../revocation/broker.js';
import '../client/token-source.js';
import 'nats';
import '../server/guard.js'; // refused: noRestrictedImports
import '../internal.js'; // refused: noRestrictedImports
import 'pino'; // refused: noRestrictedImports noUndeclaredDependencies
