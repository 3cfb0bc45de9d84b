/** What minting and checking tokens needs of the revocation log in PostgreSQL. */

import type { Sql } from '../../common/database/database.js';
import type { MintingTimes, TokenOrigin, TokenRows } from '../records/tokens.js';

/** The lookups for tokens, inside a transaction, which must be read committed. */
export function createTokenRows(sql: Sql): TokenRows {
  return {
    mintingTimes: () => readMintingTimes(sql),
    anyRevoked: (tokenIds) => isAnyRevoked(sql, tokenIds),
    foreignRevoked: (token) => isForeignRevoked(sql, token),
  };
}

/** Two statements, executed in this order: the snapshot of a single one would be older than the time that it reads. */
async function readMintingTimes(sql: Sql): Promise<MintingTimes> {
  const [clock, state] = await Promise.all([
    sql.query<{ now: Date }>('SELECT clock_timestamp() AS now'),
    sql.query<{ token_seconds: number }>('SELECT token_seconds FROM log_state'),
  ]);
  const [now, lifetimeSeconds] = [clock.rows[0]?.now, state.rows[0]?.token_seconds];
  if (now === undefined || lifetimeSeconds === undefined) throw new Error('the revocation log has no state');
  return { now, lifetimeSeconds };
}

async function isAnyRevoked(sql: Sql, tokenIds: readonly string[]): Promise<boolean> {
  const keys = tokenIds.map((tokenId) => Buffer.from(tokenId.replaceAll('-', ''), 'hex'));
  const { rowCount } = await sql.query(
    "SELECT FROM revocation_entries WHERE kind = 'TOKEN' AND issuer = '' AND key = ANY($1::bytea[]) LIMIT 1",
    [keys],
  );
  return rowCount > 0;
}

async function isForeignRevoked(
  sql: Sql,
  { issuer, tokenId, sessionId, subject, issuedAtSeconds, revocable = new Map() }: TokenOrigin,
): Promise<boolean> {
  const values = [...revocable].flatMap(([claim, texts]) => texts.map((value) => ({ claim, value })));
  const { rowCount } = await sql.query(
    `SELECT FROM revocation_entries
     WHERE issuer = $1 AND (kind = 'TOKEN' AND key = $2 OR kind = 'SESSION' AND key = $3
       OR kind = 'USER' AND key = $4 AND cut_off_time >= to_timestamp($5::float8)
       OR kind = 'CLAIM' AND cut_off_time >= to_timestamp($5::float8) AND (
         claim <> ALL($6::text[])
         OR EXISTS (SELECT FROM unnest($7::text[], $8::bytea[]) AS own (claim, value)
                    WHERE own.claim = revocation_entries.claim AND own.value = key))) LIMIT 1`,
    [
      issuer,
      Buffer.from(tokenId, 'utf8'),
      sessionId === undefined ? null : Buffer.from(sessionId, 'utf8'),
      Buffer.from(subject, 'utf8'),
      issuedAtSeconds,
      [...revocable.keys()],
      values.map(({ claim }) => claim),
      values.map(({ value }) => Buffer.from(value, 'utf8')),
    ],
  );
  return rowCount > 0;
}
