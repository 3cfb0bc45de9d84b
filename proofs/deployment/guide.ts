/** docs/operating/compose.md, carried out command by command on a copy of the checkout, with podman in the place of docker. */

import { spawn } from 'node:child_process';
import { chmod, cp, mkdir, readFile, symlink, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { PROJECT_FOLDER } from '../../scripts/system/project.js';
import type { Board } from '../shared/board.js';
import { copyCheckout, PROGRAM_PARTS } from '../shared/checkout.js';
import type { Podman } from './podman.js';

const GUIDE = join('docs', 'operating', 'compose.md');
/** Files beside the programs that the commands use. */
const PARTS = [
  ...PROGRAM_PARTS,
  'deploy',
  'examples',
  'docs',
  'package-lock.json',
  '.npmrc',
  '.dockerignore',
];

/** The packages are those of this checkout. */
const LEFT_OUT = /^npm ci$/m;

/** How long one block may take, in milliseconds. */
const BLOCK_MS_MAX = 1_200_000;
/** Of what a block has printed, in characters: its end. */
const SHOWN_MAX = 6_000;

/** A block of commands, as the page has it. */
interface Block {
  readonly text: string;
  /** Whether the page says that the last command fails. */
  readonly fails: boolean;
  /** What the page shows as its output; lines are looked for in what was printed. */
  readonly shows: readonly string[];
}

/** Follows the guide, and removes what it has started. */
export async function followGuide(options: {
  readonly podman: Podman;
  readonly programs: { readonly podman: string; readonly compose: string };
  readonly folder: string;
  readonly board: Board;
  readonly onStep: (text: string) => void;
}): Promise<void> {
  const { podman, programs, folder, board, onStep } = options;
  const checkout = join(folder, 'checkout');
  await mkdir(checkout);
  await copyCheckout(PROJECT_FOLDER, checkout, PARTS);
  await symlink(join(PROJECT_FOLDER, 'dist'), join(checkout, 'dist'));
  for (const name of ['interceptors', 'gate', 'cli']) {
    await cp(join(PROJECT_FOLDER, name, 'dist'), join(checkout, name, 'dist'), { recursive: true });
  }
  const bin = join(folder, 'bin');
  await mkdir(bin);
  await writeFile(
    join(bin, 'docker'),
    `#!/bin/sh\nif [ "$1" = compose ]; then shift; exec '${programs.compose}' "$@"; fi\nexec '${programs.podman}' "$@"\n`,
  );
  await chmod(join(bin, 'docker'), 0o755);
  const environment = {
    ...process.env,
    ...podman.environment,
    PATH: `${bin}:${join(PROJECT_FOLDER, 'node_modules', '.bin')}:${process.env['PATH'] ?? ''}`,
    HOME: folder,
    // Builds at the same time would each install the packages: podman shares no step that is still running.
    COMPOSE_PARALLEL_LIMIT: '1',
    PORTCULLIS_CONFIG: join(folder, 'portcullis.json'),
  };
  const shell = { cwd: checkout, environment };
  try {
    for (const block of blocksOf(await readFile(join(checkout, GUIDE), 'utf8'))) {
      const [name = ''] = block.text.split('\n');
      onStep(name);
      const { code, output } = await runBlock(block.text, shell);
      const isExpected = (code !== 0) === block.fails;
      board.holds('guide', name, isExpected, `exit code ${code}: ${output.slice(-SHOWN_MAX)}`);
      for (const line of block.shows) {
        board.holds('guide', `${name} prints "${line}"`, output.includes(line), output.slice(-SHOWN_MAX));
      }
      if (!isExpected) break;
    }
  } finally {
    const down = 'docker compose --file deploy/compose/compose.yaml down --volumes --timeout 20';
    await runBlock(down, shell).catch(() => undefined);
  }
}

/** The blocks of the page, in order. A block of text that follows a block of commands is what they print. */
function blocksOf(page: string): Block[] {
  const blocks: (Block & { shows: string[] })[] = [];
  for (const [, language = '', mode = '', content = ''] of page.matchAll(/^```(\w+) ?(\w*)\n(.*?)^```$/gms)) {
    if (language === 'sh' && mode !== 'example') {
      const text = content.replace(LEFT_OUT, '').trim();
      if (text !== '') blocks.push({ text, fails: mode === 'fails', shows: [] });
    } else if (language === 'text') {
      blocks.at(-1)?.shows.push(...content.split('\n').filter((line) => line !== ''));
    }
  }
  return blocks;
}

async function runBlock(
  text: string,
  { cwd, environment }: { readonly cwd: string; readonly environment: NodeJS.ProcessEnv },
): Promise<{ code: number; output: string }> {
  const child = spawn('bash', ['-euo', 'pipefail', '-c', text], {
    cwd,
    env: environment,
    stdio: ['ignore', 'pipe', 'pipe'],
    timeout: BLOCK_MS_MAX,
  });
  let output = '';
  for (const stream of [child.stdout, child.stderr]) {
    stream.setEncoding('utf8').on('data', (said: string) => {
      output += said;
    });
  }
  const code = await new Promise<number>((resolve, reject) => {
    child.once('error', reject);
    child.once('close', (exit) => resolve(exit ?? 1));
  });
  return { code, output };
}
