/** The database roles of a running system: each service reaches its own database, and nothing else on the server. */

import { expect } from 'chai';
import pg from 'pg';
import { SERVICES, type Service } from '../../scripts/system/forwarded-variables.js';
import type { System } from '../../scripts/system/system.js';
import { rejectionOf } from '../support/outcomes.js';
import { sharedSystem } from '../support/system.js';

const TEST_TIMEOUT_MS = 30_000;
const START_TIMEOUT_MS = 120_000;

describe('the database role of each service', function () {
  this.timeout(TEST_TIMEOUT_MS);
  let system: System;

  before(async function () {
    this.timeout(START_TIMEOUT_MS);
    system = await sharedSystem();
  });

  it('cannot connect to another database', async () => {
    for (const [service, role] of rolesOf(SERVICES)) {
      const others = SERVICES.filter((other) => other !== service).map((other) => `portcullis_${other}`);
      for (const database of [...others, 'postgres', 'template1']) {
        const error = await rejectionOf(query(withDatabase(role, database), 'SELECT 1'));
        expect(error.message).to.equal(`permission denied for database "${database}"`);
      }
    }
  });

  it('runs no program, reads no file, and creates neither roles nor databases', async () => {
    for (const [, role] of rolesOf(SERVICES)) {
      for (const [statement, said] of [
        ["COPY (SELECT 1) TO PROGRAM 'cat'", 'permission denied to COPY to or from an external program'],
        ["SELECT pg_read_file('postgresql.conf')", 'permission denied for function pg_read_file'],
        ['CREATE ROLE intruder', 'permission denied to create role'],
        ['CREATE DATABASE loot', 'permission denied to create database'],
        ['SELECT FROM pg_authid', 'permission denied for table pg_authid'],
      ] as const) {
        expect((await rejectionOf(query(role, statement))).message).to.equal(said);
      }
    }
  });

  it('owns no table, and changes neither tables nor triggers', async () => {
    for (const service of SERVICES) {
      const { url, ownerUrl } = system.serviceDatabases[service];
      const owners = await query(
        ownerUrl,
        "SELECT DISTINCT tableowner FROM pg_tables WHERE schemaname = 'public'",
      );
      expect(owners).to.deep.equal([{ tableowner: `portcullis_${service}_owner` }]);
      for (const [statement, said] of [
        ['ALTER TABLE requests DISABLE TRIGGER ALL', 'must be owner of table requests'],
        ['DROP TABLE requests', 'must be owner of table requests'],
        ['CREATE TABLE loot (id integer)', 'permission denied for schema public'],
        [
          `SET ROLE portcullis_${service}_owner`,
          `permission denied to set role "portcullis_${service}_owner"`,
        ],
      ] as const) {
        expect((await rejectionOf(query(url, statement))).message).to.equal(said);
      }
    }
  });

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

  it('may take the locks under which keys and clients change, and notify', async () => {
    const { url } = system.serviceDatabases.auth;
    await query(
      url,
      `BEGIN; LOCK TABLE signing_keys, clients IN EXCLUSIVE MODE;
       SELECT pg_try_advisory_xact_lock(1); SELECT pg_notify('test', ''); ROLLBACK`,
    );
  });

  /** Each service, once with its `DATABASE_URL`, and once with the URL of its migrations. */
  function rolesOf(services: readonly Service[]): (readonly [Service, string])[] {
    return services.flatMap((service) => {
      const { url, ownerUrl } = system.serviceDatabases[service];
      return [[service, url] as const, [service, ownerUrl] as const];
    });
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
