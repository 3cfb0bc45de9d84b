/** The first steps of docs/gate.md, carried out word by word but for where programs, ports and passwords are. */

import { mkdir, readFile, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { findFreePort } from '../../scripts/system/ports.js';
import { PROJECT_FOLDER } from '../../scripts/system/project.js';
import type { Board } from '../shared/board.js';
import { PageRun, stepsOf } from '../shared/page-steps.js';
import type { Environment } from './environment.js';

const PAGE = join(PROJECT_FOLDER, 'docs', 'gate.md');
const COMMAND_LINE = join(PROJECT_FOLDER, 'cli', 'dist', 'src', 'main.js');
const BUF = join(PROJECT_FOLDER, 'node_modules', '.bin', 'buf');
const PEER = 'grpcio-tools (Python), first steps of docs/gate.md';

/** The address of the gate on the page. */
const LISTEN = '127.0.0.1:50061';

/** What the server, the gate and the stream print when the next step may begin. */
const READY = /^listening|"event":"open"|"number":/;

/** So many commands may the page have, beside the one that starts the server. */
const COMMANDS_MAX = 7;

/** Carries the steps out. @param python a Python with grpcio-tools */
export async function checkFirstSteps(
  { grpcurl, python }: { readonly grpcurl: string; readonly python: string },
  environment: Environment,
  board: Board,
): Promise<void> {
  const { system } = environment;
  const steps = stepsOf(sectionOf(await readFile(PAGE, 'utf8')));
  const folder = join(environment.folder, 'first-steps');
  const project = join(folder, 'greeter');
  await mkdir(project, { recursive: true });
  const port = await findFreePort();
  const passwordFile = join(folder, 'password');
  const run = new PageRun({
    project,
    stateFile: join(folder, 'state'),
    ready: READY,
    rewrite: (text) =>
      text
        .replace(/^npm install .*$/m, ':')
        .replace(/python3 -m venv .*? && .*?pip install .*? && /, '')
        .replace('.venv/bin/python', python)
        .replaceAll('npx portcullis', `${process.execPath} ${COMMAND_LINE}`)
        .replaceAll('npx buf', BUF)
        .replaceAll(LISTEN, `127.0.0.1:${port}`),
    environmentFor: async (text) => {
      const user = /login --user (\w+)/.exec(text)?.[1];
      if (user === 'alice' || user === 'olga') await writeFile(passwordFile, system.users[user].password);
      return {
        ...process.env,
        PATH: `${dirname(grpcurl)}:${process.env['PATH'] ?? ''}`,
        PORTCULLIS_CONFIG: join(folder, 'contexts.json'),
        PORTCULLIS_ADDRESS: system.auth.address,
        PORTCULLIS_NATS_URL: `nats://${new URL(system.nats?.url('auth') ?? '').host}`,
        PORTCULLIS_PASSWORD_FILE: passwordFile,
      };
    },
    onStep: () => {},
  });
  try {
    for (const step of steps) {
      await run.carryOut(step);
      const name = step.kind === 'file' ? step.name : step.text.split('\n', 1)[0];
      board.holds(PEER, name ?? '', true, '');
    }
  } catch (error) {
    board.failed(PEER, error);
  } finally {
    run.stop();
  }
  const commands = steps.filter(({ kind }) => kind === 'commands').length - 1;
  board.holds(PEER, `${COMMANDS_MAX} commands at most`, commands <= COMMANDS_MAX, `${commands} commands`);
}

function sectionOf(page: string): string {
  const section = /^## First steps\n(.*?)^## /ms.exec(page)?.[1];
  if (section === undefined) throw new Error('docs/gate.md has no first steps');
  return section;
}
