/** The client door: for callers of guarded services. */

export type { ClientKey } from './client/client-key.js';
export { authenticate } from './client/interceptor.js';
export { CHANNEL_OPTIONS, channelOptionsFor } from './client/issuer-client.js';
export {
  createServiceTokenSource,
  type ServiceIdentity,
  type ServiceTokenSource,
} from './client/service-tokens.js';
export { createTokenSource, type FetchedToken, type TokenSource } from './client/token-source.js';
export { createExchange, type Exchange } from './server/caller-exchange.js';
export type { Channel, Plaintext } from './wire/connection.js';
export { errorOf, type ReceivedError } from './wire/status.js';
