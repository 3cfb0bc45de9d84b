/** Records the security events of auth's database as a file that `npm run traces` can replay. */

import { writeFile } from 'node:fs/promises';
import pg from 'pg';

/** Writes the ordered events and service reports to a file, one JSON object a line. */
export async function recordEvents(databaseUrl: string, file: string): Promise<void> {
  const client = new pg.Client({ connectionString: databaseUrl });
  await client.connect();
  try {
    const { rows } = await client.query<{ line: object }>(
      `SELECT CASE type
         WHEN 'service-report' THEN jsonb_build_object('time', event_time, 'report', details)
         ELSE jsonb_build_object('time', event_time, 'event', jsonb_build_object(
           'eventId', event_id, 'type', type, 'subject', subject, 'actor', actor, 'reason', reason,
           'network', network, 'source', source, 'details', details))
       END AS line FROM security_events WHERE position IS NOT NULL ORDER BY position`,
    );
    await writeFile(file, rows.map(({ line }) => `${JSON.stringify(line)}\n`).join(''));
  } finally {
    await client.end();
  }
}
