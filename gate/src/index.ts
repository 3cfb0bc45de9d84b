/** The door of the gate: a process in front of a gRPC server of any language. */

export { type Address, formatAddress, parseAddress } from './addresses.js';
export type { ReadyStatus } from './engine-types.js';
export {
  type HttpRefusal,
  httpStatusOf,
  type Protocol,
  protocolOf,
  type RequestForm,
  refusalOf,
} from './refusals.js';
