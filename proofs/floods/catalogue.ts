/** All floods, in the order in which they run. */

import { CONNECTION_FLOODS } from './connection-floods.js';
import { CUSTOMER_FLOODS } from './customer-floods.js';
import type { Flood } from './flood.js';
import { LOG_FLOODS } from './log-floods.js';
import { OPS_FLOODS } from './ops-floods.js';
import { READER_FLOODS } from './reader-floods.js';
import { SERVICE_FLOODS } from './service-floods.js';
import { STRANGER_FLOODS } from './stranger-floods.js';

export const FLOODS: readonly Flood[] = [
  ...STRANGER_FLOODS,
  ...CONNECTION_FLOODS,
  ...OPS_FLOODS,
  ...LOG_FLOODS,
  ...CUSTOMER_FLOODS,
  ...READER_FLOODS,
  ...SERVICE_FLOODS,
];

/** The floods of `--short`: some of each attacker class, and of each kind of resource. */
export const SHORT_FLOODS: readonly string[] = [
  'long-header-names',
  'half-sent-large',
  'refreshes-of-one-session',
  'stock-watchers',
  'invented-instances',
];
