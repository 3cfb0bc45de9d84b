/** The commands that the pages for operators show, each carried out against a running system. */

import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { expect } from 'chai';
import { AuthServiceClient } from '../../proto/gen/auth/v1/auth_service.js';
import { ask } from '../../scripts/system/calls.js';
import { makeTemporaryFolder } from '../../scripts/system/temporary-folder.js';
import { descriptorSetWith } from '../support/descriptor-set.js';
import { commandsOf } from '../support/documented-commands.js';
import { PROJECT_FOLDER } from '../support/project-copy.js';
import { startTestSystem, type TestSystem } from '../support/system.js';
import { createCliRunner, type Outcome, type RunOptions } from './cli-runner.js';

const PAGES = ['cli/README.md', 'docs/operating/incident.md', 'docs/operating/respond.md'];

/** What is carried out elsewhere, by the beginning of the command. */
const ELSEWHERE = [
  // `npm run package` runs them from the tarballs.
  'start',
  '--help',
  // It takes another issuer, whose revocations have tests of their own.
  'revoke --foreign',
];

/** A command that runs until it is interrupted. */
const ENDLESS = /^(?:top|events --follow)/;
const ENDLESS_MS = 2_000;

/** A file that a page names. */
const FILE = /^[a-z.]+\.(?:yaml|binpb|env|receipt|jwks)$/;

const VISITOR = '  - role: visitor\n    description: May look\n    scopes:\n      - inventory.read\n';

describe('a command on a page for operators', () => {
  let system: TestSystem;
  let folder: Awaited<ReturnType<typeof makeTemporaryFolder>>;
  let run: ReturnType<typeof createCliRunner>;
  let etag: string;
  const path = (name: string): string => join(folder.path, name);

  before(async function () {
    this.timeout(120_000);
    system = await startTestSystem();
    folder = await makeTemporaryFolder();
    run = createCliRunner(path('contexts.json'));
    await writeFile(path('greeter.binpb'), descriptorSetWith('greeter', 'greeter.call'));
    await logIn();
    // The evidence that the page verifies.
    const { out } = await good(['revoke', '--user', 'bob']);
    const number = /Receipt (\d+)/.exec(out)?.[1] ?? '';
    await good(['receipt', number, '--export', path('alice.receipt'), '--now']);
  });
  after(async () => {
    await system.remove();
    await folder.remove();
  });

  /** A token that was found somewhere. */
  async function foundToken(): Promise<string> {
    const auth = new AuthServiceClient(system.auth.address, system.credentials);
    try {
      const { username, password } = system.users.alice;
      const request = { username, password, audiences: [], scopes: [], deviceName: 'laptop' };
      return (await ask(auth.login.bind(auth), request)).accessToken;
    } finally {
      auth.close();
    }
  }

  async function good(words: readonly string[], options?: RunOptions): Promise<Outcome> {
    const outcome = await run(words, options);
    expect(outcome.code, `portcullis ${words.join(' ')}: ${outcome.out}${outcome.err}`).to.equal(0);
    return outcome;
  }

  async function logIn(): Promise<void> {
    const words = ['login', '--user', 'olga', '--address', system.auth.address, '--password-stdin'];
    await good(words, { input: system.users.olga.password });
  }

  /** The words as they are for this system: quoted words, addresses, files and what earlier commands have printed. */
  function hereOf(words: readonly string[]): string[] {
    const metrics = [system.inventory[0], system.inventory[1]].map(
      (one) => `http://${one.opsAddress}/metrics`,
    );
    const own = words.map((word) => {
      if (FILE.test(word)) return path(word);
      if (word === 'ETAG') return etag;
      if (word === '127.0.0.1:50052') return system.inventory[0].address;
      if (word.includes('/metrics')) return metrics.join(',');
      return word.replace(/^(['"])(.*)\1$/, '$2');
    });
    return own[1] === 'add' ? [...own, '--out', folder.path] : own;
  }

  async function carryOut(words: readonly string[], input: string): Promise<Outcome> {
    const here = hereOf(words);
    if (!ENDLESS.test(words.join(' '))) return await run(here, { input });
    return await run(here, { interrupt: AbortSignal.timeout(ENDLESS_MS) });
  }

  for (const page of PAGES) {
    it(`of ${page} does what the page says`, async function () {
      this.timeout(60_000);
      const text = await readFile(join(PROJECT_FOLDER, page), 'utf8');
      const shell = text.replaceAll(/^```console\n.*?^```/gms, '');
      const commands = commandsOf(shell).filter(
        (words) => !ELSEWHERE.some((beginning) => words.join(' ').startsWith(beginning)),
      );
      expect(commands).not.to.be.empty;
      const found = await foundToken();
      for (const words of commands) {
        const line = `portcullis ${words.join(' ')}`;
        const { code, out, err } = await carryOut(words, found);
        expect(code, `${line}: ${out}${err}`).to.equal(0);
        // There may be no event to follow.
        if (!line.includes('--follow')) expect(out, line).not.to.equal('');
        if (words[1] === 'get')
          await writeFile(path('policy.yaml'), out.replace('roles:\n', `roles:\n${VISITOR}`));
        etag = /etag: (\S+)/.exec(out)?.[1] ?? etag;
        // The key that has signed the token of the command is revoked by now.
        if (words.includes('--emergency')) await logIn();
      }
    });
  }
});
