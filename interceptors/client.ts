/** The client door: what a caller of guarded services needs. */

export { authenticate } from './authenticate.js';
export type { ClientKey } from './client-key.js';
export { CHANNEL_OPTIONS, channelOptionsFor } from './issuer-client.js';
export type { Channel, Plaintext } from './plaintext.js';
export {
  createExchange,
  createServiceTokenSource,
  type Exchange,
  type ServiceIdentity,
  type ServiceTokenSource,
} from './service-tokens.js';
export { errorOf, type ReceivedError } from './status.js';
export { createTokenSource, type FetchedToken, type TokenSource } from './token-source.js';
