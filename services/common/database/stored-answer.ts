/** The stored answer of a request, for its retries: JSON, or what earlier versions have stored. */
import { deserialize } from 'node:v8';
import { fromTagged, toTagged } from './tagged-json.js';

/** The JSON to store. @throws TypeError when the answer is not plain data */
export function answerToStore(answer: unknown): string {
  return JSON.stringify(toTagged(answer));
}

/**
 * The answer as it was first given.
 *
 * @param json - the parsed JSON
 * @param serialized - a value serialized by V8, as every answer was stored before November 2026; null in all others.
 *   Nothing writes it any more. To be removed, with its columns, when no row has one: in auth and inventory seven days
 *   after the last instance was replaced; in payment, which keeps answers as long as the ledger, when both
 *   `SELECT count(*) FROM requests WHERE answer IS NOT NULL` and
 *   `SELECT count(*) FROM payments WHERE first_answer IS NOT NULL` return 0.
 */
export function storedAnswer(json: unknown, serialized: Buffer | null): unknown {
  return serialized === null ? fromTagged(json) : deserialize(serialized);
}
