// room: domain code
import './revocation-handlers.js'; // refused: noRestrictedImports
import './revocation-store.js'; // refused: noRestrictedImports
