/** The commands of operators. They act on the database directly, beside the running processes. */

import { randomUUID } from 'node:crypto';
import { openDatabase } from '../common/database/database.js';
import { createCloser } from '../common/host/closer.js';
import { createLog, flushLog, type Log } from '../common/host/log.js';
import { exitWith } from '../common/host/run-main.js';
import { OWN_AUDIENCE } from './accounts/roles.js';
import { explainUnusableKey, MIGRATIONS } from './compose.js';
import type { Config } from './config.js';
import { createParts, type Parts } from './parts.js';

/**
 * Opens an epoch for an operator whose own tokens no longer count, because the log is not the one that auth followed.
 */
export async function openEpoch(config: Config, reason: string): Promise<void> {
  await runCommand(config, openKeys, (parts, log) => openAndLog(parts, log, reason));
}

/**
 * Opens an epoch when the key-encryption key was lost or has leaked. Nothing is decrypted: every private key is erased, and
 * every secret that followed from the lost key is replaced by a random one. Run again, it does so again.
 */
export async function openEpochWithoutKeys(config: Config, reason: string): Promise<void> {
  const replaceSecrets = ({ secrets }: Parts) => secrets.replace();
  await runCommand(config, replaceSecrets, (parts, log) => openAndLog(parts, log, reason));
}

async function openAndLog({ epochs }: Parts, log: Log, reason: string): Promise<void> {
  const opened = await epochs.open({ reason, actor: 'operator', requestId: randomUUID() });
  log.warn({ ...opened, epoch: opened.epoch.toString('hex') }, 'opened a new epoch');
}

/**
 * Makes a user an administrator when none is left, or none can log in: enables the user, adds the role admin, and writes a
 * reset token to standard output, with which the user sets a new password (SetPassword).
 */
export async function recoverAdmin(config: Config, username: string): Promise<void> {
  const recovered = await runCommand(config, openKeys, async ({ accountChanges }, log) => {
    const admin = await accountChanges.recoverAdmin(username);
    if (admin !== undefined) {
      const { userId, expireTime } = admin;
      log.warn({ event: 'admin_recovered', userId, expireTime }, 'made a user an administrator');
    }
    return admin;
  });
  if (recovered === undefined) {
    exitWith(`recover-admin: expected the name of a user, got ${JSON.stringify(username)}`);
  }
  process.stdout.write(`${recovered.resetToken}\n`);
}

/** Reads keys and secrets; fails when the key-encryption key is not the one of this database. */
async function openKeys({ secrets, keys }: Parts): Promise<void> {
  await keys.open();
  await secrets.open();
}

/**
 * Runs a command with the domain of auth. It requires the database and the key that encrypts its keys, so it asks for no
 * further proof.
 */
async function runCommand<T>(
  config: Config,
  prepare: (parts: Parts) => Promise<void>,
  command: (parts: Parts, log: Log) => Promise<T>,
): Promise<T> {
  const log = createLog({ service: OWN_AUDIENCE, ...config.log });
  const closer = createCloser(log);
  const { databaseUrl: url, migrationDatabaseUrl: migrationUrl, databaseLimits: limits } = config;
  const database = openDatabase({ url, migrationUrl, migrations: MIGRATIONS, log, limits });
  closer.add('database', database.close);
  const parts = createParts(config, { database, log, closer, onRevoked: () => undefined });
  try {
    await database.ready(new AbortController().signal);
    await prepare(parts);
    const result = await command(parts, log);
    await flushLog(log);
    return result;
  } catch (error) {
    throw explainUnusableKey(error);
  } finally {
    await closer.closeAll();
  }
}
