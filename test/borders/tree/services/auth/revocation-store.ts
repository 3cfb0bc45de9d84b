// room: store keeps its domain in PostgreSQL
import './revocations.js';
import 'pg';
import './revocation-handlers.js'; // refused: noRestrictedImports
import 'nats'; // refused: noRestrictedImports
