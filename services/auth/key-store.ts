/** Signing keys in PostgreSQL. Only keys of the current epoch of the revocation log exist for anybody. */

import type { Sql } from '../common/database.js';
import {
  type KeyPurpose,
  type KeyRow,
  type KeyRows,
  type KeyState,
  type PublishedKeys,
  publish,
} from './keys.js';

interface SigningKeyRow {
  readonly kid: string;
  readonly purpose: KeyPurpose;
  readonly algorithm: string;
  readonly state: KeyState;
  readonly public_jwk: string;
  readonly sealed_private_key: Buffer;
}

const KEY_COLUMNS = 'kid, purpose, algorithm, state, public_jwk, sealed_private_key';
const OF_THIS_EPOCH = 'epoch = (SELECT epoch FROM log_state)';

/** Held while keys are made, so that replicas make one set. */
const MAKING_LOCK = '7305489217362';

/** The keys' rows inside a transaction. */
export function createKeyRows(sql: Sql): KeyRows {
  return {
    epoch: async () => {
      const { rows } = await sql.query<{ epoch: Buffer }>('SELECT epoch FROM log_state');
      const [row] = rows;
      if (row === undefined) throw new Error('the revocation log has no state');
      return row.epoch;
    },

    lockMaking: async () => {
      // Waiting here is no deadlock: whoever makes keys holds nothing else that others wait for.
      await sql.query("SELECT set_config('lock_timeout', '10s', true)");
      await sql.query('SELECT pg_advisory_xact_lock($1)', [MAKING_LOCK]);
    },

    live: () => readLiveKeys(sql),

    insert: async ({ kid, purpose, algorithm, state, jwk, sealedPrivateKey }) => {
      await sql.query(
        `INSERT INTO signing_keys (kid, purpose, algorithm, epoch, state, public_jwk, sealed_private_key)
         SELECT $1, $2, $3, epoch, $4, $5, $6 FROM log_state`,
        [kid, purpose, algorithm, state, jwk, sealedPrivateKey],
      );
    },

    lockSigning: async (purpose) => {
      const { rows } = await sql.query<SigningKeyRow>(
        `SELECT ${KEY_COLUMNS} FROM signing_keys
         WHERE ${OF_THIS_EPOCH} AND purpose = $1 AND state = 'signing' FOR SHARE`,
        [purpose],
      );
      return rows[0] && keyOf(rows[0]);
    },

    retire: async (kid) => {
      await lockAgainstMinting(sql);
      const { rows } = await sql.query<{ purpose: KeyPurpose; state: KeyState }>(
        `UPDATE signing_keys k SET state = 'retired', state_time = clock_timestamp()
         FROM (SELECT kid, state FROM signing_keys WHERE ${OF_THIS_EPOCH} AND kid = $1) before
         WHERE k.kid = before.kid RETURNING k.purpose, before.state`,
        [kid],
      );
      return rows[0];
    },

    retireAll: async () => {
      await lockAgainstMinting(sql);
      await sql.query(
        `UPDATE signing_keys SET state = 'retired', state_time = clock_timestamp()
         WHERE ${OF_THIS_EPOCH} AND state <> 'retired'`,
      );
    },

    promoteNext: async (purpose) => {
      await sql.query(
        `UPDATE signing_keys SET state = 'signing', state_time = clock_timestamp()
         WHERE ${OF_THIS_EPOCH} AND purpose = $1 AND state = 'next'`,
        [purpose],
      );
    },

    lockLive: async (kid) => {
      const { rowCount } = await sql.query(
        `SELECT FROM signing_keys WHERE ${OF_THIS_EPOCH} AND kid = $1 AND state <> 'retired' FOR SHARE`,
        [kid],
      );
      return rowCount > 0;
    },
  };
}

/**
 * Waits for all that have shared a key, and makes the next ones wait. The key's row alone would not do: under load
 * it is shared at every moment, and whoever waits for it is overtaken for ever. The lock on the table has a queue.
 */
async function lockAgainstMinting(sql: Sql): Promise<void> {
  await sql.query('LOCK TABLE signing_keys IN EXCLUSIVE MODE');
}

/** What is published, as this transaction sees it. */
export async function readPublishedKeys(sql: Sql): Promise<PublishedKeys> {
  return publish(await readLiveKeys(sql));
}

async function readLiveKeys(sql: Sql): Promise<KeyRow[]> {
  const { rows } = await sql.query<SigningKeyRow>(
    `SELECT ${KEY_COLUMNS} FROM signing_keys WHERE ${OF_THIS_EPOCH} AND state <> 'retired' ORDER BY kid`,
  );
  return rows.map(keyOf);
}

function keyOf(row: SigningKeyRow): KeyRow {
  return {
    kid: row.kid,
    purpose: row.purpose,
    algorithm: row.algorithm,
    state: row.state,
    jwk: row.public_jwk,
    sealedPrivateKey: row.sealed_private_key,
  };
}
