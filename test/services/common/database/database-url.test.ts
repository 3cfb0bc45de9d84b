/** The URL of a database. */

import { expect } from 'chai';
import pg from 'pg';
import { parseDatabaseUrl } from '../../../../services/common/database/database-url.js';

/** The settings that `pg` reads from the URL of each host. */
function connectionsOf(text: string) {
  const parsed = parseDatabaseUrl(text);
  if ('problem' in parsed) throw new Error(parsed.problem);
  return parsed.urls.map((connectionString) => {
    const { user, password, host, port, database } = new pg.Client({ connectionString });
    return { user, password, host, port, database };
  });
}

function problemOf(text: string): string {
  const parsed = parseDatabaseUrl(text);
  return 'problem' in parsed ? parsed.problem : '';
}

describe('the URL of a database', () => {
  const one = { user: 'u', password: 'p', host: 'db.example', port: 5432, database: 'auth' };

  it('names one host, as before', () => {
    expect(connectionsOf('postgresql://u:p@db.example/auth')).to.deep.equal([one]);
    expect(connectionsOf('postgres://u:p@[::1]:6/auth')).to.deep.equal([{ ...one, host: '::1', port: 6 }]);
  });

  it('names several hosts with commas between them, each with a port of its own', () => {
    expect(connectionsOf('postgresql://u:p@a:1,b,[::1]:3/auth?sslmode=disable')).to.deep.equal([
      { ...one, host: 'a', port: 1 },
      { ...one, host: 'b' },
      { ...one, host: '::1', port: 3 },
    ]);
  });

  it('may ask for a host that takes writes, which is what it gets anyway', () => {
    for (const wanted of ['read-write', 'primary']) {
      const url = `postgresql://u:p@a,b/auth?target_session_attrs=${wanted}`;
      expect(connectionsOf(url)).to.have.length(2);
    }
    expect(problemOf('postgresql://u:p@a,b/auth?target_session_attrs=standby')).to.include('read-write');
  });

  it('may have a password with characters that other URLs would have to escape', () => {
    for (const password of ['a#b', '#1', 'a?b', 'a:b', 'a[b]', 'a b', 'ä', "a'b", 'a&b=c']) {
      expect(connectionsOf(`postgresql://u:${password}@db.example/auth`)).to.deep.equal([
        { ...one, password },
      ]);
      const escaped = encodeURIComponent(password);
      expect(connectionsOf(`postgresql://u:${escaped}@db.example/auth`)).to.deep.equal([
        { ...one, password },
      ]);
    }
  });

  it('may name a Unix socket', () => {
    expect(connectionsOf('postgresql://u:p@/auth?host=/run/postgresql')).to.deep.equal([
      { ...one, host: '/run/postgresql' },
    ]);
    expect(connectionsOf('postgresql://u:p@%2Frun%2Fpostgresql/auth')).to.deep.equal([
      { ...one, host: '/run/postgresql' },
    ]);
  });

  for (const [what, url, problem] of [
    ['another scheme', 'mysql://u:p@h/auth', 'must begin with postgresql:// or postgres://'],
    ['no URL', 'host=h dbname=auth', 'must begin with postgresql:// or postgres://'],
    ['an unescaped / in the password', 'postgresql://u:p/w@h/auth', 'write it as %2F'],
    ['an unescaped @ in the password', 'postgresql://u:p@w@h/auth', 'write it as %40'],
    ['an unescaped % in the password', 'postgresql://u:10%@h/auth', 'write it as %25'],
    ['an impossible port', 'postgresql://u:p@h:99999/auth', 'HOST:PORT'],
    ['an impossible host', 'postgresql://u:p@h o/auth', 'HOST:PORT'],
    ['semicolons between hosts', 'postgresql://u:p@a;b/auth', 'with commas between several'],
  ] as const) {
    it(`is rejected with ${what}, and the reason does not repeat it`, () => {
      expect(problemOf(url)).to.include(problem).and.not.include('p@');
    });
  }
});
