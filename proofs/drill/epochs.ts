/** Opening epochs, and losing one: uneven links, a backup of auth's database, and the operator's command. */

import { spawn } from 'node:child_process';
import { once } from 'node:events';
import pg from 'pg';
import { PROJECT_FOLDER, programArguments } from '../../scripts/system/project.js';
import type { Random } from '../shared/random.js';
import type { Environment } from './environment.js';

const AUTH_DATABASE = 'portcullis_auth';
const SAVED_DATABASE = 'portcullis_auth_saved';
const CHANGE_INTERVAL_MS = 70;

/** Delays requests and responses between auth and the instances by different and changing times. @returns heals */
export function delayUnevenly(
  { links }: Environment,
  { random, longestMs }: { random: Random; longestMs: number },
): () => void {
  const all = [...links.auth.values()];
  const change = (): void => {
    for (const link of all) {
      link.set({ kind: 'slow', thereMs: random.next() * longestMs, backMs: random.next() * longestMs });
    }
  };
  change();
  const timer = setInterval(change, CHANGE_INTERVAL_MS);
  return () => {
    clearInterval(timer);
    for (const link of all) link.set({ kind: 'pass' });
  };
}

/** Copies auth's database as a backup; its connections are cut. */
export async function saveAuthDatabase({ postgres }: Environment): Promise<void> {
  await alone(postgres.url('postgres'), [
    `DROP DATABASE IF EXISTS ${SAVED_DATABASE}`,
    `CREATE DATABASE ${SAVED_DATABASE} TEMPLATE ${AUTH_DATABASE}`,
  ]);
}

/** Restores auth's database from the copy; its connections are cut. */
export async function restoreAuthDatabase({ postgres }: Environment): Promise<void> {
  await alone(postgres.url('postgres'), [
    `DROP DATABASE ${AUTH_DATABASE}`,
    `ALTER DATABASE ${SAVED_DATABASE} RENAME TO ${AUTH_DATABASE}`,
  ]);
}

/** Runs statements while no other connection to auth's database exists. */
async function alone(url: string, statements: readonly string[]): Promise<void> {
  const client = new pg.Client({ connectionString: url });
  client.on('error', () => undefined);
  await client.connect();
  try {
    await client.query(`ALTER DATABASE ${AUTH_DATABASE} ALLOW_CONNECTIONS false`);
    await client.query(
      'SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE datname = $1 AND pid <> pg_backend_pid()',
      [AUTH_DATABASE],
    );
    for (const statement of statements) await client.query(statement);
  } finally {
    await client.query(`ALTER DATABASE ${AUTH_DATABASE} ALLOW_CONNECTIONS true`).finally(() => client.end());
  }
}

/** Opens an epoch as an operator does when no token is valid. @throws Error when the command fails */
export async function openEpochByCommand({ postgres, system }: Environment): Promise<void> {
  const child = spawn(
    process.execPath,
    [...programArguments('services/auth/main'), 'open-epoch', 'the', 'drill'],
    {
      cwd: PROJECT_FOLDER,
      env: {
        PATH: process.env['PATH'],
        DATABASE_URL: postgres.url(AUTH_DATABASE),
        PORTCULLIS_LISTEN: '127.0.0.1:0',
        PORTCULLIS_OPS_LISTEN: '127.0.0.1:0',
        PORTCULLIS_ISSUER: system.issuer,
        PORTCULLIS_KEY_ENCRYPTION_KEY_FILE: system.secrets.keyEncryptionKeyFile,
      },
      stdio: ['ignore', 'pipe', 'pipe'],
    },
  );
  let output = '';
  for (const stream of [child.stdout, child.stderr]) {
    stream.on('data', (text: Buffer) => {
      output += text.toString();
    });
  }
  const [code] = (await once(child, 'close')) as [number | null];
  if (code !== 0) throw new Error(`open-epoch ended with ${code}: ${output}`);
}
