/** The console of a running auth, in a real browser. */

import { expect } from 'chai';
import type { Browser, BrowserContext, Page } from 'playwright-core';
import { findFreePort } from '../../../../scripts/system/ports.js';
import { clientsOf, type SystemClients, startTestSystem, type TestSystem } from '../../../support/system.js';
import { expectAccessible, launchChromium } from './chromium.js';

/** The narrowest and a usual window, in CSS pixels. */
const WIDTHS = [360, 1280];

describe('the console in Chromium', function () {
  this.timeout(60_000);
  let system: TestSystem;
  let clients: SystemClients;
  let browser: Browser | undefined;
  let origin: string;

  before(async () => {
    browser = await launchChromium();
    if (browser === undefined) return;
    const address = `127.0.0.1:${await findFreePort()}`;
    origin = `http://${address}`;
    system = await startTestSystem({ environment: { PORTCULLIS_CONSOLE_LISTEN: address } });
    clients = clientsOf(system);
    await clients.logIn('alice');
  });

  after(async () => {
    if (browser === undefined) return;
    await browser.close();
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

  for (const width of WIDTHS) {
    for (const colorScheme of ['light', 'dark'] as const) {
      it(`has no fault that axe finds, and needs no sideways scrolling at ${width} px, ${colorScheme}`, async () => {
        await withPage({ viewport: { width, height: 800 }, colorScheme }, async (page) => {
          await findAlice(page);
          const user = new URL(page.url()).pathname;
          const paths = [
            '/',
            user,
            `/revoke?user=${user.slice('/users/'.length)}&all=1`,
            '/nowhere?',
            '/login',
          ];
          for (const path of paths.filter((one) => one !== '/nowhere?')) {
            await page.goto(`${origin}${path}`);
            await expectAccessible(page, path);
            expect(await page.evaluate('document.documentElement.scrollWidth'), path).to.be.at.most(width);
          }
        });
      });
    }
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
      await page.getByRole('heading', { name: 'Sessions ended' }).waitFor();
      await page.goto(`${origin}/?user=bob`);
      expect(await choice.count()).to.equal(0);
    });
  });
});
