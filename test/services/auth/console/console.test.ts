/** The console over HTTP: who may see what, and which requests are refused. */

import { randomUUID } from 'node:crypto';
import { once } from 'node:events';
import { request as httpRequest, type IncomingMessage } from 'node:http';
import { connect } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import { watchTlsFiles } from '@portcullis/guard/tls';
import { expect } from 'chai';
import { Client } from 'pg';
import { UserServiceClient } from '../../../../proto/gen/auth/v1/user_service.js';
import { ask } from '../../../../scripts/system/calls.js';
import { makeTemporaryFolder } from '../../../../scripts/system/temporary-folder.js';
import { html } from '../../../../services/auth/console/html.js';
import { createLoginCookies } from '../../../../services/auth/console/http.js';
import { FORMER_ID_MS, FRESH_LOGIN_MS } from '../../../../services/auth/console/operators.js';
import { createLog } from '../../../../services/common/host/log.js';
import { createAuthority } from '../../../support/certificates.js';
import { clientsOf, type SystemClients, sharedSystem, type TestSystem } from '../../../support/system.js';
import { until } from '../../../support/waiting.js';
import { type Browser, openTestConsole, type TestConsole } from './console-client.js';

describe('the console', () => {
  let system: TestSystem;
  let clients: SystemClients;
  let users: UserServiceClient;
  let console: TestConsole;

  before(async () => {
    system = await sharedSystem();
    clients = clientsOf(system);
    users = new UserServiceClient(system.auth.address, system.credentials);
    console = await openTestConsole(system);
  });

  after(async () => {
    await console.close();
    users.close();
    clients.close();
  });

  const loggedIn = async (): Promise<Browser> => {
    const browser = console.browser();
    const { status } = await browser.logIn(system.users.olga);
    expect(status).to.equal(303);
    return browser;
  };

  /** A user of this test alone, with an open session on a device. */
  const newUser = async (
    deviceName = 'a phone',
  ): Promise<{ userId: string; sessionId: string; token: string }> => {
    const { accessToken } = await clients.logIn('olga');
    const username = `user-${Math.random().toString(36).slice(2, 10)}`;
    const password = 'a long password';
    const request = { username, password, roles: ['customer'], requestId: randomUUID() };
    const { user } = await ask(users.createUser.bind(users), request, { token: accessToken });
    const login = { username, password, audiences: [], scopes: [], deviceName };
    const { session, accessToken: token } = await ask(clients.auth.login.bind(clients.auth), login);
    return { userId: user?.userId ?? '', sessionId: session?.sessionId ?? '', token };
  };

  const isAdmitted = async (token: string): Promise<boolean> =>
    await ask(clients.auth.listSessions.bind(clients.auth), { pageSize: 1, pageToken: '' }, { token }).then(
      () => true,
      () => false,
    );

  describe('its login', () => {
    it('shows nothing to a browser that has not logged in', async () => {
      for (const path of ['/', '/users/x', '/revoke?user=olga&all=1']) {
        const { status, headers, body } = await console.browser().get(path);
        expect([status, headers.location, body], path).to.deep.equal([303, '/login', '']);
      }
    });

    it('keeps the token of the operator, and gives the browser a cookie that no script and no other site has', async () => {
      const browser = console.browser();
      const { status, headers, body } = await browser.logIn(system.users.olga);
      expect([status, headers.location]).to.deep.equal([303, '/']);
      expect(headers['set-cookie']?.[0]).to.match(
        /^portcullis-console-\d+=[\w-]{43}; Path=\/; HttpOnly; SameSite=Strict$/,
      );
      expect(body).to.equal('');
      expect((await browser.get('/')).body)
        .to.include('olga')
        .and.not.match(/eyJ|pcr_/);
    });

    it('binds the cookie to the host when browsers use HTTPS', async () => {
      const cookies = createLoginCookies('https://console.example');
      const name = '__Host-portcullis-console-443';
      expect(cookies.set('x')).to.equal(`${name}=x; Path=/; HttpOnly; SameSite=Strict; Secure`);
      expect(cookies.read('portcullis-console-443=x')).to.equal(undefined);
      expect(cookies.read(`${name}=x; ${name}=y`)).to.equal(undefined);
    });

    it('does not share a cookie with another console on the same host', () => {
      const [one, other] = [52051, 52052].map((port) => createLoginCookies(`http://127.0.0.1:${port}`));
      const both = `${one?.set('x').split(';')[0]}; ${other?.set('y').split(';')[0]}`;
      expect([one?.read(both), other?.read(both)]).to.deep.equal(['x', 'y']);
    });

    it('opens nothing for the cookie in another network', async () => {
      const browser = await loggedIn();
      const thief = console.browser('127.0.0.2');
      thief.cookie = browser.cookie;
      const { status, body } = await thief.get('/');
      expect(status).to.equal(401);
      expect(body).to.not.include('olga');
      thief.cookie = browser.cookie;
      await thief.logIn(system.users.olga);
      expect((await browser.get('/')).status).to.equal(200);
    });

    it('answers at the address on which it listens, and under no other name', async () => {
      const elsewhere = await openTestConsole(system, { listenHost: '127.0.0.2' });
      try {
        expect((await elsewhere.browser().get('/login')).status).to.equal(200);
        const port = elsewhere.address.split(':')[1] ?? '';
        for (const name of ['localhost', '127.0.0.1', '[::1]']) {
          const { status } = await elsewhere.browser().get('/login', { host: `${name}:${port}` });
          expect(status, name).to.equal(421);
        }
      } finally {
        await elsewhere.close();
      }
    });

    it('uses the certificate of auth, and then a cookie for HTTPS alone', async () => {
      const folder = await makeTemporaryFolder();
      const { certFile: cert, keyFile: key } = await (await createAuthority(folder.path)).issue();
      const log = createLog({ service: 'auth', level: 'silent' });
      const watch = watchTlsFiles({ files: { cert, key }, log });
      const secure = await openTestConsole(system, { tls: watch });
      try {
        const browser = secure.browser();
        const { headers } = await browser.logIn(system.users.olga);
        expect(headers['set-cookie']?.[0]).to.match(/^__Host-portcullis-console-\d+=[\w-]{43}; .*; Secure$/);
        expect((await browser.get('/')).body).to.include('olga');
      } finally {
        await secure.close();
        watch.close();
        await folder.remove();
      }
    });

    it('refuses a wrong password, and a user without the scopes of an operator', async () => {
      const wrong = await console.browser().logIn({ ...system.users.olga, password: 'not the password' });
      expect([wrong.status, wrong.headers['set-cookie']]).to.deep.equal([403, undefined]);
      expect(wrong.body).to.include('The name or the password is wrong.');
      const customer = await console.browser().logIn(system.users.alice);
      expect([customer.status, customer.headers['set-cookie']]).to.deep.equal([403, undefined]);
      expect(customer.body).to.include('needs the scopes auth.users.read and auth.security.read');
    });

    it('does not blame the password when auth is down, or when there were too many attempts', async () => {
      const down = await openTestConsole(system, { isAuthDown: true });
      try {
        const { status, body } = await down.browser().logIn(system.users.olga);
        expect(status).to.equal(502);
        expect(body).to.include('Auth did not respond.');
      } finally {
        await down.close();
      }
      const browser = console.browser('127.0.0.3');
      const unknown = { username: `nobody-${randomUUID().slice(0, 8)}`, password: 'not a password' };
      let answer = await browser.logIn(unknown);
      for (let count = 0; count < 30 && answer.status === 403; count += 1)
        answer = await browser.logIn(unknown);
      expect(answer.status).to.equal(429);
      expect(answer.body).to.include('Wait a minute');
    });

    it('ends after half an hour without a request', async () => {
      const browser = await loggedIn();
      console.clock.passMonotonic(29 * 60_000);
      expect((await browser.get('/')).status).to.equal(200);
      console.clock.passMonotonic(31 * 60_000);
      expect((await browser.get('/')).status).to.equal(401);
    });

    it('ends with the session of the operator', async () => {
      const browser = await loggedIn();
      const { accessToken, session: own } = await clients.logIn('olga');
      await ask(clients.auth.revokeOtherSessions.bind(clients.auth), {}, { token: accessToken });
      expect(own).to.not.equal(undefined);
      const { status, headers, body } = await browser.get('/');
      expect(status).to.equal(401);
      expect(headers['set-cookie']?.[0]).to.include('Max-Age=0');
      expect(body).to.include('Your login has ended').and.not.include('olga');
      expect((await browser.get('/')).headers.location).to.equal('/login');
    });

    it('logs out: the session ends, and the cookie opens nothing any more', async () => {
      const browser = await loggedIn();
      const { cookie } = browser;
      await browser.post('/logout', { form_token: await browser.formToken() });
      browser.cookie = cookie;
      expect((await browser.get('/')).status).to.equal(401);
    });
  });

  describe('a form', () => {
    it('is refused without the token of the login, and with that of another', async () => {
      const { userId, token } = await newUser();
      const [browser, other] = [await loggedIn(), await loggedIn()];
      const form = { user: userId, all: '1', reason: 'a test' };
      for (const form_token of ['', 'x', await other.formToken()]) {
        expect((await browser.post('/revoke', { ...form, form_token })).status).to.equal(403);
      }
      expect(await isAdmitted(token)).to.equal(true);
    });

    it('is refused from another origin, and without one', async () => {
      const { userId, token } = await newUser();
      const browser = await loggedIn();
      const form = { user: userId, all: '1', reason: 'a test', form_token: await browser.formToken() };
      const foreign = [
        { origin: 'https://evil.example' },
        { origin: 'null' },
        { origin: undefined },
        { 'sec-fetch-site': 'cross-site' },
        { 'sec-fetch-site': 'same-site' },
      ];
      for (const headers of foreign) {
        const { status } = await browser.post('/revoke', form, headers);
        expect(status, JSON.stringify(headers)).to.equal(403);
      }
      expect(await isAdmitted(token)).to.equal(true);
      const { username, password } = system.users.olga;
      const login = await console
        .browser()
        .post('/login', { username, password }, { origin: 'https://evil.example' });
      expect([login.status, login.headers['set-cookie']]).to.deep.equal([403, undefined]);
    });

    it('is refused under a name that is not the console’s', async () => {
      const { status, body } = await (await loggedIn()).get('/', { host: 'rebound.evil.example' });
      expect(status).to.equal(421);
      expect(body).to.not.include('olga');
    });

    it('is no error of the server when the browser leaves before it is complete', async () => {
      const socket = connect(Number(console.address.split(':')[1]), '127.0.0.1');
      await once(socket, 'connect');
      const head = ['POST /login HTTP/1.1', `Host: ${console.address}`, `Origin: ${console.origin}`];
      const fields = ['Content-Type: application/x-www-form-urlencoded', 'Content-Length: 100'];
      socket.write(`${[...head, ...fields, '', 'username='].join('\r\n')}`);
      await sleep(100);
      socket.destroy();
      await sleep(200);
      expect(console.errors).to.deep.equal([]);
    });

    it('is refused when it is large, or no form', async () => {
      const browser = await loggedIn();
      expect((await browser.post('/revoke', { reason: 'x'.repeat(40_000) })).status).to.equal(413);
      const json = { 'content-type': 'application/json' };
      expect((await browser.post('/revoke', {}, json)).status).to.equal(415);
    });
  });

  it('answers a form that is under way when it closes', async () => {
    const { userId, token } = await newUser();
    const closing = await openTestConsole(system);
    const browser = closing.browser();
    await browser.logIn(system.users.olga);
    const form_token = await browser.formToken();
    const body = new URLSearchParams({ user: userId, all: '1', reason: 'a test', form_token }).toString();
    const request = httpRequest(`${closing.origin}/revoke`, {
      method: 'POST',
      agent: false,
      headers: {
        cookie: browser.cookie,
        origin: closing.origin,
        'content-type': 'application/x-www-form-urlencoded',
        'content-length': body.length,
      },
    });
    request.write(body.slice(0, 10));
    // Another request is answered after the form has arrived.
    await sleep(100);
    await browser.get('/login');
    const closed = closing.close();
    await sleep(50);
    request.end(body.slice(10));
    const [{ statusCode, headers }] = (await once(request, 'response')) as [IncomingMessage];
    expect(statusCode).to.equal(303);
    expect(headers.location).to.match(/^\/revocations\/\d+$/);
    await closed;
    expect(await isAdmitted(token)).to.equal(false);
  });

  it('answers other ports of its host only when a person follows a link', async () => {
    const browser = await loggedIn();
    const statusOf = async (path: string, mode: string, dest: string): Promise<number> => {
      const from = { 'sec-fetch-site': 'same-site', 'sec-fetch-mode': mode, 'sec-fetch-dest': dest };
      return (await browser.get(path, from)).status;
    };
    expect(await statusOf('/instances/live', 'cors', 'empty')).to.equal(403);
    expect(await statusOf('/', 'no-cors', 'image')).to.equal(403);
    expect(await statusOf('/', 'navigate', 'iframe')).to.equal(403);
    expect(await statusOf('/', 'navigate', 'document')).to.equal(200);
  });

  it('counts the streams of a login from before and after a confirmation together', async () => {
    const { userId } = await newUser();
    const browser = await loggedIn();
    const form_token = await browser.formToken();
    let ended = 0;
    const openStream = async (): Promise<void> => {
      const request = httpRequest(`${console.origin}/instances/live`, {
        agent: false,
        headers: { cookie: browser.cookie },
      }).end();
      request.on('error', () => {});
      const [response] = (await once(request, 'response')) as [IncomingMessage];
      response.on('error', () => {}).resume();
      response.once('end', () => {
        ended += 1;
      });
    };
    for (let count = 0; count < 3; count += 1) await openStream();
    console.clock.passMonotonic(FRESH_LOGIN_MS + 1000);
    const { password } = system.users.olga;
    await browser.post('/revoke', { user: userId, all: '1', reason: 'a test', form_token, password });
    await openStream();
    await until(() => ended > 0, { withinMs: 5000, pollMs: 20 });
    expect(ended).to.equal(1);
  });

  it('refuses the stream of an entry that the log does not have', async () => {
    expect((await (await loggedIn()).get('/revocations/999999999/live')).status).to.equal(404);
  });

  describe('a revocation by what sessions have in common', () => {
    it('counts and lists the sessions of a role first, and ends them when it is confirmed', async () => {
      const role = `role-${Math.random().toString(36).slice(2, 10)}`;
      const browser = await loggedIn();
      expect((await browser.get(`/revoke?role=${role}`)).status).to.be.oneOf([400, 404]);
      const { token } = await newUser();
      const preview = await browser.get('/revoke?role=customer');
      expect(preview.status, preview.body).to.equal(200);
      expect(preview.body)
        .to.match(/\d+ sessions? (?:is|are) open now/)
        .and.include('href="/sessions/');
      expect(await isAdmitted(token)).to.equal(true);
      const form = { role: 'customer', reason: 'a test', form_token: await browser.formToken() };
      expect((await browser.post('/revoke', { ...form, reason: ' ' })).body).to.include('State a reason.');
      expect((await browser.post('/revoke', { ...form, form_token: 'x' })).status).to.equal(403);
      expect(await isAdmitted(token)).to.equal(true);
      const ended = await browser.post('/revoke', form);
      expect(ended.headers.location, ended.body).to.match(/^\/revocations\/\d+$/);
      expect(await isAdmitted(token)).to.equal(false);
    });

    it('shows what a client takes part in, and knows which clients there are', async () => {
      const browser = await loggedIn();
      expect((await browser.get('/revoke?client=nothing-here')).status).to.equal(404);
      const preview = await browser.get('/revoke?client=payment');
      expect(preview.status, preview.body).to.equal(200);
      expect(preview.body).to.include('every token whose chain includes the client');
    });

    it('finds a key by its beginning, and asks for the password before it revokes its tokens', async () => {
      const browser = await loggedIn();
      const { body } = await browser.get('/keys');
      const kid = /<td role="cell" data-label="Key"><code>([^<]+)</.exec(body)?.[1] ?? '';
      console.clock.passMonotonic(FRESH_LOGIN_MS + 1000);
      const preview = await browser.get(`/revoke?key=${kid.slice(0, 12)}`);
      expect(preview.body).to.include(kid).and.include('name="password"');
      const form = { key: kid, reason: 'a test', form_token: await browser.formToken() };
      expect((await browser.post('/revoke', form)).status).to.equal(403);
      expect((await browser.get('/revoke?key=nothing-here')).status).to.equal(404);
    });

    it('names one thing at a time', async () => {
      const browser = await loggedIn();
      expect((await browser.get('/revoke')).status).to.equal(200);
      for (const query of ['role=customer&client=payment', 'role=customer&role=admin', 'user=alice&key=x']) {
        expect((await browser.get(`/revoke?${query}`)).status, query).to.equal(400);
      }
    });
  });

  it('sends a policy that lets nothing inline and nothing foreign run', async () => {
    for (const path of ['/login', '/', '/assets/console.js', '/nowhere']) {
      const { headers } = await console.browser().get(path);
      expect(headers['content-security-policy'], path)
        .to.match(/^default-src 'none'; script-src 'self'; style-src 'self';/)
        .and.include("frame-ancestors 'none'")
        .and.include("form-action 'self'")
        .and.not.include('unsafe');
      expect(headers['cache-control'], path).to.equal('no-store');
    }
  });

  it('names the cause on the page of an error, and keeps the navigation', async () => {
    const browser = await loggedIn();
    const { status, body } = await browser.get('/revocations?page=wrong');
    expect(status).to.equal(400);
    expect(body).to.include('The request is not valid').and.include('<nav aria-label="Pages">');
  });

  it('escapes what users have chosen', async () => {
    const evil = '<img src=x onerror=alert(1)>"\'&\u202Egnp';
    const { userId } = await newUser(evil);
    const browser = await loggedIn();
    const { body } = await browser.get(`/users/${userId}`);
    expect(body).to.include('&lt;img src=x onerror=alert(1)&gt;&quot;&#39;&amp;\uFFFDgnp');
    expect(body).to.not.include('<img').and.not.include('\u202E');
    expect((await browser.get(`/?user=${encodeURIComponent(evil)}`)).body).to.not.include('<img');
    expect(
      html`<a title="${'"><script>'}">${[html`<b>1</b>`, '<i>', undefined, false, 0]}</a>`.text,
    ).to.equal('<a title="&quot;&gt;&lt;script&gt;"><b>1</b>&lt;i&gt;0</a>');
  });

  it('finds a user by name in any spelling, and by id', async () => {
    const browser = await loggedIn();
    const { headers } = await browser.get('/?user=ALICE');
    expect(headers.location).to.match(/^\/users\/[0-9a-f-]{36}$/);
    const [, , userId = ''] = (headers.location ?? '').split('/');
    expect((await browser.get(`/?user=${userId}`)).headers.location).to.equal(headers.location);
    expect((await browser.get('/?user=nobody-here')).body).to.include('There is no user nobody-here.');
    expect((await browser.get('/users/nobody-here')).status).to.equal(404);
  });

  it('ends a session with a reason, which the log has with the operator and the network', async () => {
    const { userId, sessionId, token } = await newUser('a lost phone');
    const browser = await loggedIn();
    expect((await browser.get(`/users/${userId}`)).body).to.include('a lost phone');
    const form_token = await browser.formToken();
    const form = { user: userId, session: sessionId, form_token };
    expect((await browser.post('/revoke', { ...form, reason: ' ' })).body).to.include('State a reason.');
    expect(await isAdmitted(token)).to.equal(true);
    const ended = await browser.post('/revoke', { ...form, reason: 'phone lost <b>' });
    expect(ended.headers.location, ended.body).to.match(/^\/revocations\/\d+$/);
    expect(await isAdmitted(token)).to.equal(false);
    const listed = await ask(
      clients.revocation.listRevocations.bind(clients.revocation),
      { pageSize: 1, pageToken: '', target: sessionId, actor: '', eventId: '' },
      { token: (await clients.logIn('olga')).accessToken },
    );
    const [entry] = listed.revocations;
    expect([entry?.reason, entry?.network]).to.deep.equal(['phone lost <b>', '127.0.0.1']);
    expect(entry?.actor).to.match(/^[0-9a-f-]{36}$/);
    expect((await browser.get(`/users/${userId}`)).body).to.include('has no open session');
  });

  it('refuses the session of another user, and counts a repeated one once', async () => {
    const [one, other] = [await newUser(), await newUser()];
    const browser = await loggedIn();
    const path = `/revoke?user=${one.userId}&session=${one.sessionId}&session=`;
    const repeated = await browser.get(`${path}${one.sessionId}`);
    expect(repeated.body).to.include('End 1 session of');
    const foreign = await browser.get(`${path}${other.sessionId}`);
    expect(foreign.status).to.equal(400);
    expect(foreign.body)
      .to.include(`<li><code>${other.sessionId}</code></li>`)
      .and.not.include('name="reason"');
    const form = { user: one.userId, session: other.sessionId, reason: 'a test' };
    const posted = await browser.post('/revoke', { ...form, form_token: await browser.formToken() });
    expect(posted.status).to.equal(400);
    expect(await isAdmitted(other.token)).to.equal(true);
  });

  it('says so when no session was chosen', async () => {
    const { userId } = await newUser();
    const { status, body } = await (await loggedIn()).get(`/revoke?user=${userId}`);
    expect(status).to.equal(400);
    expect(body).to.include('No session was chosen.');
  });

  it('asks for the password before a revocation when the login is not fresh', async () => {
    const { userId, token } = await newUser();
    const browser = await loggedIn();
    const form = { user: userId, all: '1', reason: 'a test' };
    console.clock.passMonotonic(FRESH_LOGIN_MS + 1000);
    expect((await browser.get(`/revoke?user=${userId}&all=1`)).body).to.include('name="password"');
    const form_token = await browser.formToken();
    for (const password of [undefined, '', 'not the password']) {
      const asked = await browser.post('/revoke', {
        ...form,
        form_token,
        ...(password !== undefined && { password }),
      });
      expect(asked.status).to.equal(403);
      expect(asked.body).to.include('value="a test"');
    }
    expect(await isAdmitted(token)).to.equal(true);
    const former = browser.cookie;
    await browser.post('/revoke', { ...form, form_token, password: system.users.olga.password });
    expect(await isAdmitted(token)).to.equal(false);
    expect(browser.cookie).to.not.equal(former);
    expect((await browser.get(`/revoke?user=${userId}&all=1`)).body).to.not.include('name="password"');
    browser.cookie = former;
    expect((await browser.get('/')).status).to.equal(200);
    console.clock.passMonotonic(FORMER_ID_MS + 1000);
    const { status, headers } = await browser.get('/');
    expect([status, headers['set-cookie']]).to.deep.equal([401, undefined]);
  });

  it('does not remove the cookie of a login that replaced another one in the browser', async () => {
    const browser = await loggedIn();
    const former = browser.cookie;
    await browser.logIn(system.users.olga);
    browser.cookie = former;
    const { status, headers } = await browser.get('/');
    expect([status, headers['set-cookie']]).to.deep.equal([401, undefined]);
  });

  it('grants nothing that the operator’s own scopes do not', async () => {
    const { accessToken } = await clients.logIn('olga');
    const username = `reader-${Math.random().toString(36).slice(2, 10)}`;
    const password = 'a long password';
    const request = { username, password, roles: ['customer', 'security'], requestId: randomUUID() };
    const { user } = await ask(users.createUser.bind(users), request, { token: accessToken });
    const browser = console.browser();
    await browser.logIn({ username, password });
    const form_token = await browser.formToken();
    // The operator loses the role, and the console with it: its calls go through the same rules as all others.
    await ask(
      users.setUserRoles.bind(users),
      { userId: user?.userId ?? '', roles: ['customer'], requestId: '' },
      { token: accessToken },
    );
    const target = await newUser();
    const { status } = await browser.post('/revoke', {
      user: target.userId,
      all: '1',
      reason: 'a test',
      form_token,
    });
    expect(status).to.be.oneOf([401, 403]);
    expect(await isAdmitted(target.token)).to.equal(true);
  });

  it('shows 100,000 sessions of one user page by page', async function () {
    this.timeout(30_000);
    const { userId, sessionId, token } = await newUser();
    expect(token).to.not.equal('');
    await insertSessions(system, sessionId, 100_000);
    const browser = await loggedIn();
    const startMs = performance.now();
    const first = await browser.get(`/users/${userId}`);
    expect(performance.now() - startMs).to.be.below(5000);
    expect(first.body.match(/<tr role="row">/g)).to.have.length(51);
    const next = /href="([^"]+)" rel="next"/.exec(first.body)?.[1]?.replaceAll('&amp;', '&') ?? '';
    const second = await browser.get(next);
    expect(second.status).to.equal(200);
    expect(second.body).to.include('First page');
    const ended = await browser.post('/revoke', {
      user: userId,
      all: '1',
      reason: 'too many',
      form_token: await browser.formToken(),
    });
    expect(ended.headers.location, ended.body).to.match(/^\/revocations\/\d+$/);
    expect((await browser.get(`/users/${userId}`)).body).to.include('has no open session');
  });
});

/** Copies a session of a user many times. */
async function insertSessions(system: TestSystem, sessionId: string, count: number): Promise<void> {
  const client = new Client({ connectionString: system.postgres?.url('portcullis_auth') });
  await client.connect();
  try {
    await client.query(
      `INSERT INTO sessions (session_id, user_id, client_id, generation, client_generation, device_name, audiences,
         scopes, amr, create_time, last_use_time, expire_time)
       SELECT gen_random_uuid(), user_id, client_id, generation, client_generation, 'device ' || n, audiences,
         scopes, amr, create_time, last_use_time, expire_time
       FROM sessions, generate_series(1, $2::int) n WHERE session_id = $1`,
      [sessionId, count],
    );
  } finally {
    await client.end();
  }
}
