/** The policy of the demo: its services and roles beside those that are built into auth, as in a bootstrap file. */

import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { PROJECT_FOLDER } from './project.js';

/** A policy as a bootstrap file has it. */
export interface PolicyFile {
  readonly services: readonly {
    readonly audience: string;
    readonly description: string;
    readonly scopes: readonly string[];
  }[];
  readonly roles: readonly {
    readonly role: string;
    readonly description: string;
    readonly scopes: readonly string[];
  }[];
}

/** The policy in `demo-policy.json`. */
export function readDemoPolicy(): PolicyFile {
  const file = join(PROJECT_FOLDER, 'scripts', 'system', 'demo-policy.json');
  return JSON.parse(readFileSync(file, 'utf8')) as PolicyFile;
}
