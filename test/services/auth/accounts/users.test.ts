/** Tests of the users, against PostgreSQL. */

import { randomUUID } from 'node:crypto';
import { expect } from 'chai';
import { codeOf, serviceErrorOf } from '../../../support/outcomes.js';
import { type AuthInstance, logIn, openFreshAuth } from '../instance.js';

describe('users', () => {
  let auth: AuthInstance;

  before(async () => {
    auth = await openFreshAuth();
  });
  after(() => auth.close());

  const request = (
    over: { username?: string; password?: string; roles?: string[]; requestId?: string } = {},
  ) => ({
    actor: 'admin',
    username: `user-${randomUUID()}`,
    password: 'long enough',
    roles: ['customer'],
    requestId: randomUUID(),
    ...over,
  });

  it('can be found and can log in once they are created', async () => {
    const user = await auth.users.create(request({ roles: ['operator', 'customer', 'customer'] }));
    expect(user.roles).to.deep.equal(['customer', 'operator']);
    expect(await auth.users.get(user.userId)).to.deep.equal(user);
    await logIn(auth, { ...user, password: 'long enough' });
  });

  it('treat names that differ in case as one name', async () => {
    const user = await auth.users.create(request({ username: 'Case.Test' }));
    expect(user.username).to.equal('case.test');
    expect(await codeOf(auth.users.create(request({ username: 'CASE.TEST' })))).to.equal('ALREADY_EXISTS');
  });

  it('reject a name that looks like an existing one', async () => {
    await auth.users.create(request({ username: 'maria.cosmo' }));
    const twins = ['rnaria.cosmo', 'maria.c0sm0', 'María.Cosmo', 'maria.cosmö', 'ＭＡＲＩＡ.cosmo'];
    for (const username of twins) {
      expect(await codeOf(auth.users.create(request({ username }))), username).to.equal('ALREADY_EXISTS');
    }
    await auth.users.create(request({ username: 'ору.сос' }));
    expect(await codeOf(auth.users.create(request({ username: 'opy.coc' })))).to.equal('ALREADY_EXISTS');
  });

  it('are created once per request id, and a retry returns the first response', async () => {
    const first = request();
    const user = await auth.users.create(first);
    expect(await auth.users.create(first)).to.deep.equal(user);
    for (const over of [{ username: 'other-name' }, { roles: ['admin'] }, { password: 'another password' }]) {
      expect(await codeOf(auth.users.create({ ...first, ...over }))).to.equal('REQUEST_ID_REUSED');
    }
    await auth.users.create({ ...request(), requestId: first.requestId, actor: 'another admin' });
  });

  it('reject each invalid field by its name', async () => {
    const faults: [Parameters<typeof request>[0], string][] = [
      [{ username: 'ab' }, 'username'],
      [{ username: 'x'.repeat(65) }, 'username'],
      [{ username: 'white space' }, 'username'],
      [{ username: 'аdmin' }, 'username'],
      [{ password: 'short' }, 'password'],
      [{ password: 'x'.repeat(257) }, 'password'],
      [{ password: 'not UTF-8 \uFFFD' }, 'password'],
      [{ roles: ['customer', 'root'] }, 'roles[1]'],
      [{ roles: ['__proto__'] }, 'roles[0]'],
      [{ roles: Array<string>(33).fill('customer') }, 'roles'],
      [{ requestId: '' }, 'request_id'],
      [{ requestId: 'a\0b' }, 'request_id'],
    ];
    for (const [over, field] of faults) {
      const { code, violations, message } = await serviceErrorOf(auth.users.create(request(over)));
      expect([code, violations.map((violation) => violation.field)], field).to.deep.equal([
        'FIELD_INVALID',
        [field],
      ]);
      if (over?.password !== undefined) expect(message).to.not.contain(over.password);
    }
  });

  it('return NOT_FOUND for an unknown id and for any other text', async () => {
    for (const userId of [randomUUID(), '', 'nobody', "' OR true --", 'a\0b']) {
      expect(await codeOf(auth.users.get(userId))).to.equal('NOT_FOUND');
    }
  });

  it('are listed by name, page by page', async () => {
    for (const name of ['zz-b', 'zz-a', 'zz-c']) await auth.users.create(request({ username: name }));
    const seen: string[] = [];
    let pageToken = '';
    do {
      const page = await auth.users.list({ pageSize: 2, pageToken });
      seen.push(...page.users.map(({ username }) => username));
      pageToken = page.nextPageToken;
    } while (pageToken !== '');
    expect(seen).to.deep.equal([...seen].sort());
    expect(seen).to.include.members(['zz-a', 'zz-b', 'zz-c']);
    expect(await codeOf(auth.users.list({ pageSize: 0, pageToken: 'x' }))).to.equal('FIELD_INVALID');
  });
});
