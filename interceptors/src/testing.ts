/** The door for tests of guarded services, in any test runner. */

export type { TokenPayload } from './testing/accounts.js';
export type { BadTokenName, BadTokens } from './testing/bad-tokens.js';
export {
  createTestKit,
  type MatrixOptions,
  type ServeOptions,
  type TestEngineOptions,
  type TestGuardOptions,
  type TestKit,
  type TestKitOptions,
} from './testing/kit.js';
export {
  type Credential,
  formatMatrix,
  type Matrix,
  type ServiceRules,
  type Verdict,
} from './testing/matrix.js';
export type { Persona, ServiceOptions, ThroughOptions, UserOptions } from './testing/personas.js';
export type { RevokeTarget } from './testing/revoke.js';
export type { ClientClass, Served, Setup } from './testing/serve.js';
