/** The real browser of the tests: Debian's Chromium, driven by playwright-core. */

import { access } from 'node:fs/promises';
import axe from 'axe-core';
import { expect } from 'chai';
import { type Browser, chromium, type Page } from 'playwright-core';

const PROGRAM = '/usr/bin/chromium';

/** Undefined, with a note, on a machine without Chromium. */
export async function launchChromium(): Promise<Browser | undefined> {
  const isThere = await access(PROGRAM).then(
    () => true,
    () => false,
  );
  if (!isThere) {
    console.log('      not checked: Chromium is missing; apt-get install -y chromium');
    return undefined;
  }
  // The tests may run as root in a container, where the sandbox of Chromium cannot.
  return await chromium.launch({ executablePath: PROGRAM, args: ['--no-sandbox', '--disable-gpu'] });
}

/** Fails with every violation that axe finds on a page, in light and in dark colours. */
export async function expectAccessible(page: Page, what: string): Promise<void> {
  // The policy of the pages forbids an inline script; this is how a debugger runs one.
  await page.evaluate(axe.source);
  await page.emulateMedia({ colorScheme: 'light' });
  expect(await violationsOf(page, {}), `${what}, light`).to.deep.equal([]);
  await page.emulateMedia({ colorScheme: 'dark' });
  expect(await violationsOf(page, { runOnly: ['color-contrast'] }), `${what}, dark`).to.deep.equal([]);
}

async function violationsOf(page: Page, options: object): Promise<unknown> {
  const given = JSON.stringify({ ...options, resultTypes: ['violations'] });
  return await page.evaluate(`axe.run(${given}).then((result) =>
    result.violations.flatMap(({ id, help, nodes }) => nodes.map(({ html }) => id + ': ' + help + ': ' + html)))`);
}
