/**
 * Databases of auth for tests. A run that opens them for each of thousands of mutants (`TEST_DATABASES_REUSED`) empties
 * them and uses them again, because making a database costs more than most tests.
 */

import pg from 'pg';
import { openDatabase } from '../../../services/common/database/database.js';
import { createLog } from '../../../services/common/host/log.js';
import { type FreshDatabase, freshDatabase } from '../../support/postgres.js';

const MIGRATIONS = new URL('../../../services/auth/migrations/', import.meta.url);

/** Copies what the migrations have written, and creates the function that restores it. */
const KEEP_INITIAL_ROWS = `
  CREATE SCHEMA initial;
  DO $$ DECLARE t text; BEGIN
    FOR t IN SELECT tablename FROM pg_tables WHERE schemaname = 'public' LOOP
      EXECUTE format('CREATE TABLE initial.%1$I AS TABLE public.%1$I', t);
    END LOOP;
  END $$;
  CREATE FUNCTION initial.restore() RETURNS void LANGUAGE plpgsql SET session_replication_role = replica AS $$
  DECLARE t text; columns text; BEGIN
    PERFORM pg_terminate_backend(pid) FROM pg_stat_activity
      WHERE datname = current_database() AND pid <> pg_backend_pid();
    FOR t IN SELECT tablename FROM pg_tables WHERE schemaname = 'initial' LOOP
      SELECT string_agg(quote_ident(column_name), ', ') INTO columns FROM information_schema.columns
        WHERE table_schema = 'public' AND table_name = t AND is_generated = 'NEVER';
      EXECUTE format('DELETE FROM public.%I', t);
      EXECUTE format('INSERT INTO public.%1$I (%2$s) SELECT %2$s FROM initial.%1$I', t, columns);
    END LOOP;
  END $$;`;

interface Reusable {
  readonly database: FreshDatabase;
  readonly administrator: pg.Client;
}

const free: Reusable[] = [];

/** A database without users, keys and sessions. */
export async function migratedDatabase(): Promise<FreshDatabase> {
  if (process.env['TEST_DATABASES_REUSED'] === undefined) return await freshDatabase();
  const reusable = free.pop() ?? (await createReusable());
  const { database, administrator } = reusable;
  return {
    ...database,
    drop: async () => {
      await administrator.query('SELECT initial.restore()').then(
        () => free.push(reusable),
        () => database.drop(),
      );
    },
  };
}

async function createReusable(): Promise<Reusable> {
  const database = await freshDatabase();
  const log = createLog({ service: 'auth', level: 'silent' });
  const migrated = openDatabase({ url: database.url, migrations: MIGRATIONS, log });
  await migrated.ready(AbortSignal.timeout(45_000));
  await migrated.close();
  const administrator = new pg.Client({ connectionString: database.url });
  administrator.on('error', () => undefined);
  await administrator.connect();
  await administrator.query(KEEP_INITIAL_ROWS);
  return { database, administrator };
}
