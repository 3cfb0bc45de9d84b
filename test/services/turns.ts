/** Checks that the users of a service take turns when they wait for its database. */

import { expect } from 'chai';
import {
  DATABASE_LIMITS_DEFAULT,
  type Database,
  openDatabase,
} from '../../services/common/database/database.js';
import { createLog } from '../../services/common/host/log.js';
import { codeOrOk } from '../support/outcomes.js';
import { until } from '../support/waiting.js';

const QUEUE = 4;

/** A database with one connection for known callers and a short queue. */
export async function openNarrowDatabase(url: string, migrations: URL): Promise<Database> {
  const lanes = { ...DATABASE_LIMITS_DEFAULT.lanes, known: { connections: 1, queue: QUEUE } };
  const log = createLog({ service: 'test', level: 'silent' });
  const database = openDatabase({
    url,
    migrations,
    log,
    limits: { ...DATABASE_LIMITS_DEFAULT, lanes },
  });
  await database.ready(AbortSignal.timeout(45_000));
  return database;
}

/** One user fills the queue of a narrow database with reads; the read of another one is served all the same. */
export async function expectTurns(
  database: Database,
  read: (caller: string) => Promise<unknown>,
): Promise<void> {
  const waiting = (): number =>
    database.lanes().find(({ importance }) => importance === 'known')?.waiting ?? 0;
  let open = (): void => {};
  const gate = new Promise<void>((resolve) => {
    open = resolve;
  });
  let isHeld = false;
  const held = database.transaction(async () => {
    isHeld = true;
    await gate;
  });
  try {
    await until(() => isHeld);
    const flood = Array.from({ length: 3 * QUEUE }, () => codeOrOk(read('one')));
    await until(() => waiting() === QUEUE);
    const other = read('other');
    open();
    await other;
    expect(await Promise.all(flood)).to.include('RATE_LIMITED');
  } finally {
    open();
    await held;
  }
}
