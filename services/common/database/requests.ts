/** Requests that are carried out once however often they are sent: the first answer is kept and given again. */

import { createHash } from 'node:crypto';
import type { ServiceError } from '@portcullis/guard/errors';
import { CommonError } from '../errors.js';
import {
  parseRequestId,
  type RepeatableRequest,
  requestIdToStore,
  storedRequestIds,
} from '../validation/request-id.js';
import type { Sql } from './database.js';
import { answerToStore, storedAnswer } from './stored-answer.js';

/** How long an answer is kept for a retry. */
const REQUEST_KEPT_DAYS = 7;
/** How many old requests one call of {@link forgetRequests} drops at most. */
const REQUESTS_FORGOTTEN_MAX = 1_000;

/**
 * Runs `work` unless this request was carried out before; then returns the first answer. Belongs inside the
 * transaction that `work` writes in, so that answer and effect are kept together or not at all. The answer must be
 * plain data: bigint, Date, Buffer and undefined survive, prototypes do not. An empty id means that the caller takes
 * the risk of repeating: `work` runs.
 *
 * A migration of each service that uses this creates the table:
 * ```sql
 * CREATE TABLE requests (
 *   subject text NOT NULL,
 *   method text NOT NULL,
 *   request_id text NOT NULL,
 *   payload_hash bytea NOT NULL,
 *   answer bytea,
 *   answer_json json,
 *   created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
 *   PRIMARY KEY (subject, method, request_id),
 *   CHECK (num_nonnulls(answer, answer_json) = 1)
 * );
 * CREATE INDEX requests_created_at ON requests (created_at);
 * ```
 *
 * @throws ServiceError FIELD_INVALID for an id that is too long, REQUEST_IN_PROGRESS while the same request runs
 *   elsewhere, REQUEST_ID_REUSED when the id came with another payload
 */
export async function oncePerRequest<T>(
  sql: Sql,
  request: RepeatableRequest,
  work: () => Promise<T>,
): Promise<T> {
  const { subject, method } = request;
  const requestId = parseRequestId(request.requestId);
  if (requestId === '') return work();
  await takeLock(sql, { ...request, requestId });
  const payloadHash = createHash('sha256').update(request.payload).digest();
  const { rows } = await sql.query<StoredRequest>(
    'SELECT payload_hash, answer, answer_json FROM requests WHERE subject = $1 AND method = $2 AND request_id = ANY($3)',
    [subject, method, storedRequestIds(request.requestId)],
  );
  const known = rows[0];
  if (known !== undefined) return repeatAnswer<T>(known, payloadHash);
  const answer = await work();
  const identity = { ...request, requestId: requestIdToStore(request.requestId) };
  await keepAnswer(sql, identity, payloadHash, answerToStore(answer));
  return answer;
}

/** Drops requests that are too old to be repeated, the oldest first; returns how many. */
export async function forgetRequests(sql: Sql): Promise<number> {
  const { rowCount } = await sql.query(
    `DELETE FROM requests WHERE (subject, method, request_id) IN (
       SELECT subject, method, request_id FROM requests
       WHERE created_at < clock_timestamp() - make_interval(days => $1)
       ORDER BY created_at LIMIT $2 FOR UPDATE SKIP LOCKED)`,
    [REQUEST_KEPT_DAYS, REQUESTS_FORGOTTEN_MAX],
  );
  return rowCount;
}

/** One request runs at a time; the lock goes with the transaction. */
async function takeLock(sql: Sql, { subject, method, requestId }: RepeatableRequest): Promise<void> {
  const { rows } = await sql.query<{ taken: boolean }>(
    'SELECT pg_try_advisory_xact_lock(hashtextextended($1, 0)) AS taken',
    [JSON.stringify([subject, method, requestId])],
  );
  if (rows[0]?.taken !== true) throw inProgress();
}

interface StoredRequest {
  readonly payload_hash: Buffer;
  readonly answer: Buffer | null;
  readonly answer_json: unknown;
}

function repeatAnswer<T>(known: StoredRequest, payloadHash: Buffer): T {
  if (known.payload_hash.equals(payloadHash)) return storedAnswer(known.answer_json, known.answer) as T;
  throw new CommonError('REQUEST_ID_REUSED', 'request_id was used before with another request', {
    violations: [{ field: 'request_id', description: 'was used before with another request' }],
  });
}

async function keepAnswer(
  sql: Sql,
  { subject, method, requestId }: RepeatableRequest,
  payloadHash: Buffer,
  answerJson: string,
): Promise<void> {
  // With a snapshot taken before the other's commit, the conflict raises 40001 here, and the transaction runs again.
  const { rowCount } = await sql.query(
    `INSERT INTO requests (subject, method, request_id, payload_hash, answer_json)
     VALUES ($1, $2, $3, $4, $5) ON CONFLICT DO NOTHING`,
    [subject, method, requestId, payloadHash, answerJson],
  );
  if (rowCount !== 1) throw inProgress();
}

function inProgress(): ServiceError {
  return new CommonError('REQUEST_IN_PROGRESS', 'the same request is being carried out', {
    retryAfterMs: 200,
  });
}
