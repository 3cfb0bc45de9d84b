/** The policy of the demo, as tests need it: as a document, arranged for lookups, and in a database. */

import { readDemoPolicy } from '../../../scripts/system/demo-policy.js';
import { parseBootstrap } from '../../../services/auth/config.js';
import { policyOf } from '../../../services/auth/policy/policy.js';
import { createPolicyRows } from '../../../services/auth/policy/store.js';
import type { Policy, PolicyDocument } from '../../../services/auth/records/policy.js';
import type { DatabaseLane } from '../../../services/common/database/database.js';

/** The demo's policy with what is built in. */
export const DEMO_DOCUMENT: PolicyDocument = demoDocument();

export const DEMO_POLICY: Policy = policyOf(DEMO_DOCUMENT, {
  etag: 'demo',
  changed: true,
  updateTime: new Date(0),
});

/** The roles of the demo. */
export const DEMO_ROLES: readonly string[] = DEMO_POLICY.roles.map(({ role }) => role);

/** Gives a database the policy of the demo, unless its policy was changed before. */
export async function installDemoPolicy(database: DatabaseLane): Promise<void> {
  await database.transaction(async (sql) => {
    const rows = createPolicyRows(sql, { policy: undefined });
    if (!(await rows.lock()).changed) await rows.replace(DEMO_DOCUMENT);
  });
}

function demoDocument(): PolicyDocument {
  const parsed = parseBootstrap(JSON.stringify({ policy: readDemoPolicy() }));
  if ('faults' in parsed || parsed.policy === undefined) throw new Error('the demo’s policy is not valid');
  return parsed.policy;
}
