/** A page of the documentation, carried out command by command. */

import { spawn } from 'node:child_process';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { Board } from '../shared/board.js';

/** How long one block may take, in milliseconds. */
const BLOCK_MS_MAX = 1_200_000;
/** Of what a block has printed, in characters: its end. */
const SHOWN_MAX = 6_000;

/** The packages are those of this checkout. */
const LEFT_OUT = /^npm ci$/m;

/** Where commands run. */
export interface Shell {
  readonly cwd: string;
  readonly environment: NodeJS.ProcessEnv;
}

/** A block of commands, as the page has it. */
interface Block {
  readonly text: string;
  /** Whether the page says that the last command fails. */
  readonly fails: boolean;
  /** What the page shows as its output; lines are looked for in what was printed. */
  readonly shows: readonly string[];
}

/**
 * Carries out the commands of a page, or of one section of it. It ends at the first block that does not do what the page
 * says.
 *
 * @param options.page - its path in the folder of the shell
 * @param options.section - a heading of the second level; default: the whole page
 * @returns whether all blocks did what the page says
 */
export async function followPage(options: {
  readonly page: string;
  readonly section?: string;
  readonly shell: Shell;
  readonly board: Board;
  readonly onStep: (text: string) => void;
}): Promise<boolean> {
  const { page, section, shell, board, onStep } = options;
  const text = await readFile(join(shell.cwd, page), 'utf8');
  const blocks = blocksOf(section === undefined ? text : sectionOf(text, section));
  if (blocks.length === 0) throw new Error(`${page} has no block of commands`);
  for (const block of blocks) {
    const [name = ''] = block.text.split('\n');
    onStep(name);
    const { code, output } = await runCommands(block.text, shell);
    const missing = block.shows.filter((line) => !output.includes(line));
    const isExpected = (code !== 0) === block.fails && missing.length === 0;
    const fault = `exit code ${code}, not printed: ${JSON.stringify(missing)}\n${output.slice(-SHOWN_MAX)}`;
    board.holds(page, `does what the page says: ${name}`, isExpected, fault);
    if (!isExpected) return false;
  }
  return true;
}

function sectionOf(page: string, heading: string): string {
  const section = page.split(/^## /m).find((text) => text.startsWith(`${heading}\n`));
  if (section === undefined) throw new Error(`there is no section "${heading}"`);
  return section;
}

/** The blocks of a text, in order. A block of text that follows a block of commands is what they print. */
function blocksOf(text: string): Block[] {
  const blocks: (Block & { shows: string[] })[] = [];
  for (const [, language = '', mode = '', content = ''] of text.matchAll(
    /^ *```(\w+) ?(\w*)\n(.*?)^ *```$/gms,
  )) {
    if (language === 'sh' && mode !== 'example') {
      const commands = content.replace(LEFT_OUT, '').trim();
      if (commands !== '') blocks.push({ text: commands, fails: mode === 'fails', shows: [] });
    } else if (language === 'text') {
      blocks.at(-1)?.shows.push(...content.split('\n').filter((line) => line.trim() !== ''));
    }
  }
  return blocks;
}

/** Runs commands, up to the first that fails. */
export async function runCommands(
  text: string,
  { cwd, environment }: Shell,
): Promise<{ readonly code: number; readonly output: string }> {
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
