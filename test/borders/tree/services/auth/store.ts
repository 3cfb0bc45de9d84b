// room: store keeps its domain in PostgreSQL
import './users.js';
import 'node:crypto';
import 'pg';
import '../common/database/database.js';
import '@portcullis/guard/errors';
import '@portcullis/guard/clock';
import './handlers.js'; // refused: noRestrictedImports
import './main.js'; // refused: noRestrictedImports
import './parts.js'; // refused: noRestrictedImports
import './adapters/broadcast.js'; // refused: noRestrictedImports
import '../inventory/store.js'; // refused: noRestrictedImports
import '@portcullis/guard'; // refused: noRestrictedImports
import '../../proto/gen/auth/v1/auth_service.js'; // refused: noRestrictedImports
import '../../proto/gen/google/protobuf/timestamp.js'; // refused: noRestrictedImports
import '@grpc/grpc-js'; // refused: noRestrictedImports
import 'nats'; // refused: noRestrictedImports

export const url = process.env['DATABASE_URL']; // refused: noProcessEnv
export const now = new Date(); // refused: plugin
export const epoch = new Date(0);
