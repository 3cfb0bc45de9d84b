/** The console of a running auth, in a real browser unless it is missing. */

import { randomUUID } from 'node:crypto';
import { expect } from 'chai';
import type { Browser, BrowserContext, Page } from 'playwright-core';
import { ask } from '../../../../scripts/system/calls.js';
import { findFreePort } from '../../../../scripts/system/ports.js';
import { clientsOf, type SystemClients, startTestSystem, type TestSystem } from '../../../support/system.js';
import { until } from '../../../support/waiting.js';
import { expectAccessible, launchChromium } from './chromium.js';
import { createBrowser } from './console-client.js';

/** Long enough for the browser to open the page of a revocation before a silent instance refuses calls. */
const LEASE_MS = 4_000;

/** The narrowest and a usual window, in CSS pixels. */
const WIDTHS = [360, 1280];

describe('the console of a running auth', function () {
  this.timeout(60_000);
  let system: TestSystem;
  let clients: SystemClients;
  let browser: Browser | undefined;
  let origin: string;
  /** A session whose refresh token was used twice. */
  let stolen: string;
  /** A revocation in the log. */
  let sequence: bigint;

  before(async () => {
    browser = await launchChromium();
    const address = `127.0.0.1:${await findFreePort()}`;
    origin = `http://${address}`;
    system = await startTestSystem({
      environment: { PORTCULLIS_CONSOLE_LISTEN: address },
      leaseMs: LEASE_MS,
    });
    clients = clientsOf(system);
    const { accessToken: token } = await clients.logIn('alice');
    const { session } = await clients.logIn('alice');
    const request = { sessionId: session?.sessionId ?? '' };
    stolen = await reuse(clients);
    ({ sequence } = await ask(clients.auth.revokeSession.bind(clients.auth), request, { token }));
  });

  after(async () => {
    await browser?.close();
    clients.close();
    await system.remove();
  });

  /** Runs with a page of a fresh profile in which olga is logged in; fails on errors of the page's console. */
  const withPage = async (
    options: Parameters<Browser['newContext']>[0],
    work: (page: Page, context: BrowserContext) => Promise<void>,
  ): Promise<void> => {
    if (browser === undefined) return;
    const context = await browser.newContext(options);
    context.setDefaultTimeout(10_000);
    const problems: string[] = [];
    // Nothing may leave the origin of the console.
    await context.route('**/*', async (route) => {
      if (route.request().url().startsWith(`${origin}/`)) return await route.continue();
      problems.push(`a request to ${route.request().url()}`);
      await route.abort();
    });
    try {
      const page = await context.newPage();
      page.on('console', (message) => {
        // What the console answers to a login that has ended, and what a test answers in its place.
        if (/status of 4(?:01|04|29)/.test(message.text())) return;
        if (message.type() === 'error' || message.type() === 'warning') problems.push(message.text());
      });
      page.on('pageerror', (error) => problems.push(String(error)));
      await page.goto(`${origin}/login`);
      await page.getByLabel('User name').fill('olga');
      await page.getByLabel('Password').fill(system.users.olga.password);
      await page.getByRole('button', { name: 'Log in' }).click();
      await page.waitForURL(`${origin}/`);
      await work(page, context);
      expect(problems).to.deep.equal([]);
    } finally {
      await context.close();
    }
  };

  const findAlice = async (page: Page): Promise<void> => {
    await page.goto(`${origin}/`);
    await page.getByLabel('User name or id').fill('alice');
    await page.keyboard.press('Enter');
    await page.waitForURL(/\/users\/[0-9a-f-]{36}$/);
  };

  it('calls auth with the address of the browser, which events and limits then have', async () => {
    const caller = createBrowser(origin, '127.0.0.2');
    await caller.logIn({ ...system.users.olga, password: 'not the password' });
    await caller.logIn(system.users.olga);
    const networkOf = async (type: string): Promise<string | undefined> => {
      const { body } = await caller.get(`/events?type=${type}`);
      return /<td role="cell" data-label="From">([^<]*)</.exec(body)?.[1];
    };
    expect(await networkOf('session-established')).to.equal('127.0.0.2');
    // Failed logins are recorded in the background.
    await until(async () => (await networkOf('login-failed')) !== undefined, {
      withinMs: 10_000,
      pollMs: 100,
    });
    expect(await networkOf('login-failed')).to.equal('127.0.0.2');
  });

  for (const width of WIDTHS) {
    it(`has no fault that axe finds, and needs no sideways scrolling at ${width} px`, async () => {
      await withPage({ viewport: { width, height: 800 } }, async (page) => {
        await findAlice(page);
        const user = new URL(page.url()).pathname;
        const revoke = `/revoke?user=${user.slice('/users/'.length)}&all=1`;
        const lists = ['/revocations', '/instances', '/events', '/keys', '/policy'];
        const revocations = ['/revoke', '/revoke?role=customer', '/revoke?client=payment'];
        const places = [...lists, ...revocations, `/revocations/${sequence}`, `/sessions/${stolen}`];
        for (const path of ['/', user, revoke, ...places, '/login']) {
          await page.goto(`${origin}${path}`);
          expect(await page.evaluate('document.documentElement.scrollWidth'), path).to.be.at.most(width);
          await expectAccessible(page, path);
        }
      });
    });
  }

  it('ends a session with the keyboard alone, without scripts', async () => {
    const { session } = await clients.logIn('bob');
    await withPage({ javaScriptEnabled: false }, async (page) => {
      await page.goto(`${origin}/?user=bob`);
      const choice = page.getByRole('checkbox', { name: session?.sessionId.slice(0, 8) ?? '' });
      await choice.focus();
      await page.keyboard.press('Space');
      await page.keyboard.press('Enter');
      await page.getByLabel('Reason').focus();
      await page.keyboard.type('the phone was lost');
      await page.keyboard.press('Enter');
      await page.waitForURL(/\/revocations\/\d+$/);
      await page.goto(`${origin}/?user=bob`);
      expect(await choice.count()).to.equal(0);
    });
  });

  it('shows a revocation as it spreads, with an instance that is silent', async () => {
    const [, stopped] = system.inventory;
    const { session } = await clients.logIn('bob');
    await withPage({}, async (page) => {
      try {
        await page.goto(`${origin}/?user=bob`);
        await page.getByRole('checkbox', { name: session?.sessionId.slice(0, 8) ?? '' }).check();
        await page.getByRole('button', { name: 'End the chosen sessions…' }).click();
        await page.getByLabel('Reason').fill('a test of the time axis');
        stopped.kill('SIGSTOP');
        await page.getByRole('button', { name: 'End 1 session' }).click();
        await page.waitForURL(/\/revocations\/\d+$/);
        const status = page.getByRole('status');
        await status.getByText('3 of 4 instances enforce it. 1 instance has not confirmed it yet.').waitFor();
        await page.getByRole('cell', { name: 'not confirmed yet' }).waitFor();
        // Its lease ends, and the page says so without a reload.
        await status
          .getByText('3 of 4 instances enforce it. 1 instance is silent and refuses calls.')
          .waitFor();
        expect(await page.locator('circle.enforced').count()).to.equal(3);
        expect(await page.locator('line.refusing').count()).to.equal(1);
        expect(await page.getByRole('cell', { name: 'enforces it' }).count()).to.equal(3);
        await page.goto(`${origin}/instances`);
        await page.getByRole('cell', { name: 'refuses calls' }).waitFor();
      } finally {
        stopped.kill('SIGCONT');
      }
      await page.getByRole('status').getByText('4 serving, 0 refusing calls').waitFor();
    });
  });

  it('shows nothing any more in a tab whose session was revoked', async () => {
    await withPage({}, async (page) => {
      await page.goto(`${origin}/instances`);
      await page.getByRole('cell', { name: /^payment/ }).waitFor();
      const { accessToken } = await clients.logIn('olga');
      await ask(clients.auth.revokeOtherSessions.bind(clients.auth), {}, { token: accessToken });
      await page.getByRole('heading', { name: 'Log in' }).waitFor();
      expect(await page.content()).to.not.include('payment');
    });
  });

  it('says since when a live page is not up to date, and recovers by itself', async () => {
    await withPage({}, async (page) => {
      await page.goto(`${origin}/instances`);
      await page.getByText('This page changes as it happens.').waitFor();
      system.auth.kill('SIGSTOP');
      try {
        await page.getByText(/^Not up to date since \d\d:\d\d:\d\d UTC/).waitFor();
      } finally {
        system.auth.kill('SIGCONT');
      }
      await page.getByText('This page changes as it happens.').waitFor();
      await page.getByRole('status').getByText('4 serving, 0 refusing calls').waitFor();
    });
  });

  it('opens a stream that was refused again', async () => {
    await withPage({}, async (page) => {
      await page.clock.install();
      await page.route('**/live', (route) => route.fulfill({ status: 429 }), { times: 1 });
      await page.goto(`${origin}/instances`);
      await page.getByText(/^Not up to date since/).waitFor();
      await page.clock.fastForward(10_000);
      await page.getByText('This page changes as it happens.').waitFor();
    });
  });

  it('stops, and says so, when a stream is refused for good', async () => {
    await withPage({}, async (page) => {
      await page.clock.install();
      let requests = 0;
      await page.route('**/live', async (route) => {
        requests += 1;
        await route.fulfill({ status: 404 });
      });
      await page.goto(`${origin}/instances`);
      await page.getByText('This page no longer changes').waitFor();
      await page.clock.fastForward(60_000);
      // The stream, and the request for its status.
      expect(requests).to.equal(2);
    });
  });

  it('shows new events as they happen, says so politely, and pauses', async () => {
    await withPage({}, async (page) => {
      await page.goto(`${origin}/events?type=session-established`);
      await page.getByText('This page changes as it happens.').waitFor();
      const newest = page.getByRole('row').nth(1);
      const logIn = async (): Promise<string> =>
        ((await clients.logIn('bob')).session?.sessionId ?? '').slice(0, 8);
      await newest.getByText(await logIn()).waitFor();
      await page
        .getByRole('status')
        .getByText(/^1 new event since .* session-established/)
        .waitFor();
      await page.getByRole('button', { name: 'Pause' }).click();
      await page.getByText('Paused. This page does not change.').waitFor();
      const later = await logIn();
      await page.waitForTimeout(3_000);
      expect(await page.getByText(later).count()).to.equal(0);
      await expectAccessible(page, '/events, paused');
      await page.getByRole('button', { name: 'Resume' }).click();
      await newest.getByText(later).waitFor();
    });
  });

  it('counts what its port refuses in the metrics of auth', async () => {
    const response = await fetch(`http://${system.auth.opsAddress}/metrics`);
    expect(await response.text())
      .to.include('portcullis_http_connections_evicted_total{port="console"} 0')
      .and.include('portcullis_http_requests_refused_total{port="console",limit="pipelined"} 0');
  });

  it('closes the stream of a hidden tab, and opens it again when the tab is visible', async () => {
    await withPage({}, async (page) => {
      const live: string[] = [];
      page.on('request', (request) => void live.push(...(request.url().endsWith('/live') ? ['opened'] : [])));
      page.on(
        'requestfailed',
        (request) => void live.push(...(request.url().endsWith('/live') ? ['closed'] : [])),
      );
      const show = async (state: 'visible' | 'hidden'): Promise<void> => {
        await page.evaluate(`Object.defineProperty(document, 'visibilityState', { value: '${state}', configurable: true });
          document.dispatchEvent(new Event('visibilitychange'))`);
      };
      await page.goto(`${origin}/instances`);
      await page.getByText('This page changes as it happens.').waitFor();
      await show('hidden');
      await until(() => live.length === 2, { withinMs: 5000, pollMs: 20 });
      await show('visible');
      await until(() => live.length === 3, { withinMs: 5000, pollMs: 20 });
      expect(live).to.deep.equal(['opened', 'closed', 'opened']);
    });
  });

  it('keeps the other tabs usable when many are live, and says in the oldest that another one is', async () => {
    await withPage({}, async (page, context) => {
      await page.goto(`${origin}/instances`);
      await page.getByText('This page changes as it happens.').waitFor();
      for (let count = 0; count < 7; count += 1) {
        const tab = await context.newPage();
        await tab.goto(`${origin}/instances`);
        await tab.getByText('This page changes as it happens.').waitFor();
      }
      await page.getByText('Another tab of the console is live, so this one is not.').waitFor();
    });
  });

  it('runs no script that a device name brings', async () => {
    const { username, password } = system.users.bob;
    const deviceName = '<script>document.title="evil"</script><img src=x onerror="document.title=1">';
    const login = { username, password, audiences: [], scopes: [], deviceName };
    await ask(clients.auth.login.bind(clients.auth), login);
    await withPage({}, async (page) => {
      await page.goto(`${origin}/?user=bob`);
      await page.getByText(deviceName).waitFor();
      expect(await page.title()).to.equal('bob · Portcullis console');
      expect(await page.locator('img').count()).to.equal(0);
    });
  });

  it('shows the chain of a session whose refresh token was stolen, and the anomaly', async () => {
    await withPage({}, async (page) => {
      await page.goto(`${origin}/sessions/${stolen}`);
      const steps = await page.locator('.chain li').allTextContents();
      expect(steps.map((step) => step.trim().split(/[:,\n]/)[0]).slice(0, 3)).to.deep.equal([
        'Login',
        'Refresh',
        'Reuse',
      ]);
      const reused = await page.evaluate(
        "getComputedStyle(document.querySelector('.chain .alarm strong')).color",
      );
      expect(reused).to.equal('rgb(179, 20, 28)');
      await page.goto(`${origin}/events`);
      await page.getByLabel('Type').selectOption('refresh-token-reused');
      await page.getByLabel('About').fill('bob');
      await page.getByRole('button', { name: 'Filter' }).click();
      await page.getByRole('cell', { name: 'refresh-token-reused' }).first().waitFor();
      await page.getByRole('link', { name: stolen.slice(0, 8) }).waitFor();
    });
  });
});

/** Uses a refresh token of bob twice. @returns the session, which has ended */
async function reuse({ auth, logIn }: SystemClients): Promise<string> {
  const { refreshToken, session } = await logIn('bob');
  const refresh = (): Promise<unknown> =>
    ask(auth.refresh.bind(auth), { refreshToken, requestId: randomUUID() });
  await refresh();
  await refresh().catch(() => undefined);
  return session?.sessionId ?? '';
}
