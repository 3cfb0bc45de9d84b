/** Where and what this process is, as it states in its syncs. */

import { hostname } from 'node:os';
import type { InstanceDescription } from '../../gen/portcullis/revocation/v1/revocation.js';

/** The version of this library, as in its package.json: a test compares them. */
const GUARD_VERSION = '0.1.0';

/** The description of this process. @param wallMs - the present time, in milliseconds */
export function instanceDescription(wallMs: number): InstanceDescription {
  return {
    host: hostname(),
    version: GUARD_VERSION,
    startTime: new Date(Math.round(wallMs - process.uptime() * 1000)),
  };
}
