/** The sections of the bench, in the order in which they run. */

import { cold } from './cold.js';
import { deployment } from './deployment.js';
import { domain } from './domain.js';
import { gate } from './gate.js';
import { hydrate } from './hydrate.js';
import { list } from './list.js';
import { live } from './live.js';
import { login } from './login.js';
import { longLists } from './long-lists.js';
import { peers } from './peers.js';
import { revoke } from './revoke.js';
import { scale } from './scale.js';
import type { Section } from './section.js';
import { storm } from './storm.js';
import { sync } from './sync.js';
import { throughput } from './throughput.js';
import { warm } from './warm.js';

export const SECTIONS: readonly Section[] = [
  warm,
  peers,
  cold,
  storm,
  list,
  hydrate,
  live,
  longLists,
  scale,
  revoke,
  gate,
  throughput,
  sync,
  login,
  domain,
  deployment,
];
