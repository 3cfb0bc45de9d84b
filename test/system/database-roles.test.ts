/** The database roles of a running system: each service reaches its own database, and nothing else on the server. */

import { expect } from 'chai';
import pg from 'pg';
import { SERVICES, type Service } from '../../scripts/system/databases.js';
import type { System } from '../../scripts/system/system.js';
import { rejectionOf } from '../support/outcomes.js';
import { sharedSystem } from '../support/system.js';

const START_TIMEOUT_MS = 120_000;

describe('the database role of each service', () => {
  let system: System;

  before(async function () {
    this.timeout(START_TIMEOUT_MS);
    system = await sharedSystem();
  });

  for (const service of SERVICES) {
    it(`of ${service} cannot connect to another database`, async () => {
      const others = SERVICES.filter((other) => other !== service).map((other) => `portcullis_${other}`);
      for (const url of rolesOf(service)) {
        for (const database of [...others, 'postgres', 'template1']) {
          const error = await rejectionOf(query(withDatabase(url, database), 'SELECT 1'));
          expect(error.message).to.equal(`permission denied for database "${database}"`);
        }
      }
    });

    it(`of ${service} is no superuser: it runs no program, reads no file and creates no role`, async () => {
      for (const url of rolesOf(service)) {
        for (const [statement, said] of [
          ["COPY (SELECT 1) TO PROGRAM 'cat'", 'permission denied to COPY to or from an external program'],
          ["SELECT pg_read_file('postgresql.conf')", 'permission denied for function pg_read_file'],
          ['CREATE ROLE intruder', 'permission denied to create role'],
          ['CREATE DATABASE loot', 'permission denied to create database'],
          ['SELECT FROM pg_authid', 'permission denied for table pg_authid'],
        ] as const) {
          expect((await rejectionOf(query(url, statement))).message).to.equal(said);
        }
      }
    });

    it(`of ${service} changes rows, and neither tables nor triggers`, async () => {
      const [url, ownerUrl] = rolesOf(service);
      const owned = await query(
        ownerUrl,
        "SELECT FROM pg_tables WHERE schemaname = 'public' AND tableowner = user",
      );
      const tables = await query(ownerUrl, "SELECT FROM pg_tables WHERE schemaname = 'public'");
      expect(owned).to.have.length(tables.length).above(0);
      for (const [statement, said] of [
        ['ALTER TABLE schema_migrations DISABLE TRIGGER ALL', 'must be owner of table schema_migrations'],
        ['DROP TABLE schema_migrations', 'must be owner of table schema_migrations'],
        ['CREATE TABLE loot (id integer)', 'permission denied for schema public'],
        [
          `SET ROLE portcullis_${service}_owner`,
          `permission denied to set role "portcullis_${service}_owner"`,
        ],
      ] as const) {
        expect((await rejectionOf(query(url, statement))).message).to.equal(said);
      }
    });
  }

  it('is the only one that a process of a service works with', async () => {
    const rows = await query(
      system.postgres?.url('postgres') ?? '',
      "SELECT DISTINCT datname, usename FROM pg_stat_activity WHERE application_name = 'portcullis'",
    );
    // A service whose connections are closed for idleness has no row.
    const all = SERVICES.map((service) => ({
      datname: `portcullis_${service}`,
      usename: `portcullis_${service}`,
    }));
    expect(rows).not.to.deep.equal([]);
    for (const row of rows) expect(all).to.deep.include(row);
  });

  it('of auth may take the locks under which keys and clients change, and notify', async () => {
    const { url } = system.serviceDatabases.auth;
    await query(
      url,
      `BEGIN; LOCK TABLE signing_keys, clients IN EXCLUSIVE MODE;
       SELECT pg_try_advisory_xact_lock(1); SELECT pg_notify('test', ''); ROLLBACK`,
    );
  });

  /** The URLs of a service: `DATABASE_URL`, and the one with which its migrations run. */
  function rolesOf(service: Service): readonly [string, string] {
    const { url, ownerUrl } = system.serviceDatabases[service];
    return [url, ownerUrl];
  }
});

async function query(url: string, text: string): Promise<unknown[]> {
  const client = new pg.Client({ connectionString: url });
  client.on('error', () => undefined);
  try {
    await client.connect();
    return (await client.query<object>(text)).rows;
  } finally {
    await client.end();
  }
}

function withDatabase(text: string, database: string): string {
  const url = new URL(text);
  url.pathname = `/${database}`;
  return url.href;
}
