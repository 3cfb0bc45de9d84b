/**
 * `npm run screenshots`: starts a private system with its console, lets some things happen, and photographs the pages for
 * docs/operating/console.md, in real Chromium. With a folder as argument, it writes there, and in all sizes and colours.
 */

import { randomUUID } from 'node:crypto';
import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { type Browser, type BrowserContext, chromium, type Page } from 'playwright-core';
import { AuthServiceClient } from '../../proto/gen/auth/v1/auth_service.js';
import { ask } from '../../scripts/system/calls.js';
import { findFreePort } from '../../scripts/system/ports.js';
import { PROJECT_FOLDER } from '../../scripts/system/project.js';
import type { DemoUser } from '../../scripts/system/secrets.js';
import { type System, startSystem } from '../../scripts/system/system.js';
import { makeTemporaryFolder } from '../../scripts/system/temporary-folder.js';

const PROGRAM = '/usr/bin/chromium';

/** Where the pictures of the documentation are. */
const DOCUMENTED = join(PROJECT_FOLDER, 'docs', 'operating', 'console');

/** How long an instance may trust its list: long enough to photograph a silent one. */
const LEASE_MS = 6_000;

/** A picture of the documentation, or one more of the same page. */
interface Shot {
  readonly name: string;
  readonly width: number;
  readonly colorScheme: 'light' | 'dark';
}

const WIDE = { width: 1280, colorScheme: 'light' } as const;
const NARROW = { width: 360, colorScheme: 'dark' } as const;

const DEVICES = ['Firefox on Linux', 'Phone', 'Tablet', ''];

const [folder = DOCUMENTED] = process.argv.slice(2);
const isForDocumentation = folder === DOCUMENTED;
await mkdir(folder, { recursive: true });
const temporary = await makeTemporaryFolder();
const address = `127.0.0.1:${await findFreePort()}`;
const origin = `http://${address}`;
const system = await startSystem({
  dataDir: temporary.path,
  ports: 'free',
  ephemeral: true,
  leaseMs: LEASE_MS,
  environment: { PORTCULLIS_CONSOLE_LISTEN: address },
});
try {
  const browser = await chromium.launch({ executablePath: PROGRAM, args: ['--no-sandbox', '--disable-gpu'] });
  try {
    await photograph(system, browser);
  } finally {
    await browser.close();
  }
} finally {
  await system.stop();
  await temporary.remove();
}

async function photograph({ auth: { address: auth }, ...rest }: System, browser: Browser): Promise<void> {
  const { users, credentials, inventory } = rest;
  const client = new AuthServiceClient(auth, credentials);
  for (const deviceName of DEVICES) {
    const { username, password } = users.alice;
    const login = { username, password, audiences: [], scopes: [], deviceName };
    await ask(client.login.bind(client), login);
  }
  const stolen = await stealRefreshToken(client, users.bob);
  client.close();
  const context = await browser.newContext({ viewport: { width: 1280, height: 600 } });
  try {
    const page = await logIn(context, users.olga.password);
    await page.goto(`${origin}/?user=alice`);
    await shoot(page, 'user');
    const user = page.url();
    await page.getByRole('checkbox').nth(1).check();
    await page.getByRole('button', { name: 'End the chosen sessions…' }).click();
    await page.getByLabel('Reason').fill('Tablet lost on the train');
    await shoot(page, 'end');
    const [, silent] = inventory;
    silent.kill('SIGSTOP');
    await page.getByRole('button', { name: 'End 1 session' }).click();
    await page.waitForURL(/\/revocations\/\d+$/);
    // Long enough for the others to confirm.
    await page.getByRole('status').getByText('3 of 4').waitFor();
    await shoot(page, 'spreading');
    await page.getByRole('status').getByText('is silent').waitFor();
    await shoot(page, 'spread');
    await page.goto(`${origin}/instances`);
    await shoot(page, 'instances');
    silent.kill('SIGCONT');
    await page.goto(`${origin}/revocations`);
    await shoot(page, 'revocations');
    await page.goto(`${origin}/sessions/${stolen}`);
    await shoot(page, 'chain');
    // The rule of the anomaly runs in the background.
    const anomaly = page.getByRole('cell', { name: 'anomaly-detected' }).first();
    for (let tries = 0; tries < 20 && (await anomaly.count()) === 0; tries += 1) {
      await sleep(500);
      await page.goto(`${origin}/events`);
    }
    await shoot(page, 'events');
    await page.goto(`${origin}/keys`);
    await shoot(page, 'keys');
    await page.goto(`${origin}/policy`);
    await shoot(page, 'policy');
    await page.goto(user);
    await page.getByRole('button', { name: 'Log out' }).click();
    await page.getByRole('heading', { name: 'Log in' }).waitFor();
    await shoot(page, 'login');
  } finally {
    await context.close();
  }
}

/** Refreshes a session some times, and then with a used token. @returns the session */
async function stealRefreshToken(
  client: AuthServiceClient,
  { username, password }: DemoUser,
): Promise<string> {
  const login = { username, password, audiences: [], scopes: [], deviceName: 'Phone' };
  const { session, refreshToken: first } = await ask(client.login.bind(client), login);
  const refresh = async (refreshToken: string): Promise<string> =>
    (await ask(client.refresh.bind(client), { refreshToken, requestId: randomUUID() })).refreshToken;
  const second = await refresh(first);
  await refresh(second);
  await refresh(second).catch(() => undefined);
  return session?.sessionId ?? '';
}

async function logIn(context: BrowserContext, password: string): Promise<Page> {
  const page = await context.newPage();
  await page.goto(`${origin}/login`);
  await page.getByLabel('User name').fill('olga');
  await page.getByLabel('Password').fill(password);
  await page.getByRole('button', { name: 'Log in' }).click();
  await page.waitForURL(`${origin}/`);
  return page;
}

/** The pictures of one page. */
function shotsOf(name: string): readonly Shot[] {
  if (!isForDocumentation) {
    return [360, 1280].flatMap((width) =>
      (['light', 'dark'] as const).map((colorScheme) => ({
        name: `${name}-${width}-${colorScheme}`,
        width,
        colorScheme,
      })),
    );
  }
  switch (name) {
    case 'spread':
      return [
        { name, ...WIDE },
        { name: `${name}-narrow`, ...NARROW },
      ];
    case 'user':
    case 'instances':
    case 'chain':
      return [{ name, ...WIDE }];
    default:
      return [];
  }
}

async function shoot(page: Page, of: string): Promise<void> {
  for (const { name, width, colorScheme } of shotsOf(of)) {
    await page.emulateMedia({ colorScheme });
    await page.setViewportSize({ width, height: 600 });
    await sleep(100);
    await page.screenshot({ path: join(folder, `${name}.png`), fullPage: true });
  }
}
