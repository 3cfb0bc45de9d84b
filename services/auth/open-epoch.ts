/** The command that opens a new epoch of the revocation log. */

import { randomUUID } from 'node:crypto';
import { openDatabase } from '../common/database/database.js';
import { createCloser } from '../common/host/closer.js';
import { createLog, flushLog } from '../common/host/log.js';
import { OWN_AUDIENCE } from './accounts/roles.js';
import { explainUnusableKey, MIGRATIONS } from './compose.js';
import type { Config } from './config.js';
import { createParts } from './parts.js';

/**
 * Opens an epoch for an operator whose own tokens no longer count, because the log is not the one that auth followed.
 * Running this command requires the database and the key that encrypts its keys, so it asks for no further proof.
 */
export async function openEpoch(config: Config, reason: string): Promise<void> {
  const log = createLog({ service: OWN_AUDIENCE, level: config.logLevel });
  const closer = createCloser(log);
  const { databaseUrl: url, migrationDatabaseUrl: migrationUrl, databaseLimits: limits } = config;
  const database = openDatabase({ url, migrationUrl, migrations: MIGRATIONS, log, limits });
  closer.add('database', database.close);
  const { keys, epochs } = createParts(config, { database, log, closer, onRevoked: () => undefined });
  try {
    await database.ready(new AbortController().signal);
    // Fails when the key-encryption key is not the one of this database.
    await keys.open();
    const opened = await epochs.open({ reason, actor: 'operator', requestId: randomUUID() });
    log.warn({ ...opened, epoch: opened.epoch.toString('hex') }, 'opened a new epoch');
    await flushLog(log);
  } catch (error) {
    throw explainUnusableKey(error);
  } finally {
    await closer.closeAll();
  }
}
