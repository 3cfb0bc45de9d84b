// room: domain code
import './reservations.js';
import 'node:crypto';
import '@portcullis/guard/errors';
import '@portcullis/guard/clock';
import '@portcullis/guard/limits';
import './store.js'; // refused: noRestrictedImports
import './item-store.js'; // refused: noRestrictedImports
import './handlers.js'; // refused: noRestrictedImports
import './main.js'; // refused: noRestrictedImports
import './config.js'; // refused: noRestrictedImports
import './adapters/broadcast.js'; // refused: noRestrictedImports
import '../common/database/database.js'; // refused: noRestrictedImports
import '../payment/ledger.js'; // refused: noRestrictedImports
import '@portcullis/guard'; // refused: noRestrictedImports
import '@portcullis/guard/internal'; // refused: noRestrictedImports
import '../../proto/gen/inventory/v1/inventory_service.js'; // refused: noRestrictedImports
import '../../proto/gen/portcullis/type/v1/money.js'; // refused: noRestrictedImports
import '@grpc/grpc-js'; // refused: noRestrictedImports
import 'nats'; // refused: noRestrictedImports
import 'pg'; // refused: noRestrictedImports
import 'pino'; // refused: noRestrictedImports

export const environment = process.env; // refused: noProcessEnv
export const wallMs = Date.now; // refused: plugin
export const now = (): Date => new Date(); // refused: plugin
export const epoch = (): Date => new Date(0);

export async function settle(): Promise<void> {
  await Promise.resolve();
}
settle(); // refused: noFloatingPromises
console.log('settled'); // refused: noConsole
export const loose: any = 1; // refused: noExplicitAny
export const forced = loose as unknown as string; // refused: plugin
export default settle; // refused: noDefaultExport
