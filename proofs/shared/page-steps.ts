/** A page of the documentation, carried out word by word: its files are written, and its commands are run. */

import { spawn } from 'node:child_process';
import { mkdir, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { createInterface } from 'node:readline';
import { waitUntil } from './waiting.js';

/** Maximum time for one block of commands, in milliseconds. */
const BLOCK_MS_MAX = 300_000;

/** How long a text may take to appear in what runs in the background, in milliseconds. */
const TEXT_MS_MAX = 10_000;
const POLL_MS = 50;

/** A step of a page. */
export type Step =
  | { readonly kind: 'file'; readonly name: string; readonly content: string }
  | { readonly kind: 'commands'; readonly text: string; readonly mode: '' | 'background' | 'fails' }
  | { readonly kind: 'expect'; readonly text: string };

/** The blocks of a page: a file is named by the line before it. @throws Error for a block that is neither */
export function stepsOf(page: string): Step[] {
  const steps: Step[] = [];
  for (const [, name, language = '', mode = '', content = ''] of page.matchAll(
    /(?:^`([^`\n]+)`:\n\n)?^```(\w+) ?(\w*)\n(.*?)^```$/gms,
  )) {
    if (name !== undefined) steps.push({ kind: 'file', name, content });
    else if (language === 'text') steps.push({ kind: 'expect', text: content.trim() });
    else if (language === 'sh' && (mode === '' || mode === 'background' || mode === 'fails')) {
      steps.push({ kind: 'commands', text: content, mode });
    } else throw new Error(`the page has a block that is neither file nor command: ${language} ${mode}`);
  }
  return steps;
}

/** How a page is carried out. */
export interface PageOptions {
  /** Where files are written and commands run. */
  readonly project: string;
  /** Keeps the variables of one block for the next, as a terminal does. */
  readonly stateFile: string;
  /** What a program in the background prints when the next step may begin. */
  readonly ready: RegExp;
  /** A block of commands, or a file, as it is on this machine. */
  readonly rewrite: (text: string) => string;
  readonly environmentFor: (text: string) => Promise<NodeJS.ProcessEnv>;
  readonly onStep: (text: string) => void;
}

/** Carries out steps one after the other. */
export class PageRun {
  readonly #options: PageOptions;
  readonly #background: { readonly kill: () => void; printed: string }[] = [];
  #printed = '';

  constructor(options: PageOptions) {
    this.#options = options;
  }

  /** @throws Error that names the step and what it has printed */
  async carryOut(step: Step): Promise<void> {
    if (step.kind === 'file') {
      const path = join(this.#options.project, step.name);
      await mkdir(dirname(path), { recursive: true });
      await writeFile(path, this.#options.rewrite(step.content));
    } else if (step.kind === 'expect') {
      await this.#expect(step.text);
    } else {
      this.#options.onStep(step.text.split('\n', 1)[0] ?? '');
      await this.#runCommands(step.text, step.mode);
    }
  }

  /** Stops what runs in the background. */
  stop(): void {
    for (const { kill } of this.#background) kill();
  }

  async #expect(text: string): Promise<void> {
    const isPrinted = (): boolean =>
      this.#printed.includes(text) || this.#background.some(({ printed }) => printed.includes(text));
    if (isPrinted()) return;
    await waitUntil(isPrinted, {
      timeoutMs: this.#background.length === 0 ? 0 : TEXT_MS_MAX,
      pollMs: POLL_MS,
      failure: () => {
        const said = [this.#printed, ...this.#background.map(({ printed }) => printed)].join('\n');
        return `expected ${JSON.stringify(text)}, and the commands printed:\n${said}`;
      },
    });
  }

  async #runCommands(text: string, mode: '' | 'background' | 'fails'): Promise<void> {
    const { project, stateFile, ready, rewrite, environmentFor } = this.#options;
    // Variables of one block are there in the next, as in a terminal.
    const script = `set -eua; touch ${stateFile}; . ${stateFile}\n${rewrite(text)}\nexport -p > ${stateFile}`;
    const child = spawn('bash', ['-c', script], {
      cwd: project,
      env: await environmentFor(text),
      stdio: ['ignore', 'pipe', 'pipe'],
      detached: true,
    });
    const kill = (): void => {
      try {
        if (child.pid !== undefined) process.kill(-child.pid, 'SIGKILL');
      } catch {
        // It has ended by itself.
      }
    };
    const output = { kill, printed: '' };
    const isReady = new Promise<void>((resolve) => {
      for (const stream of [child.stdout, child.stderr]) {
        createInterface({ input: stream }).on('line', (line) => {
          output.printed += `${line}\n`;
          if (ready.test(line)) resolve();
        });
      }
    });
    const ended = new Promise<number | null>((resolve, reject) => {
      child.once('error', reject);
      child.once('close', resolve);
    });
    const timer = setTimeout(kill, BLOCK_MS_MAX);
    try {
      if (mode === 'background') {
        this.#background.push(output);
        const first = await Promise.race([isReady.then(() => 'ready' as const), ended]);
        if (first !== 'ready') throw new Error(`${text.trim()} ended:\n${output.printed}`);
        return;
      }
      const code = await ended;
      this.#printed = output.printed;
      if ((code === 0) === (mode === 'fails')) {
        throw new Error(
          `${text.trim()}\n${mode === 'fails' ? 'should have failed' : 'failed'}:\n${output.printed}`,
        );
      }
    } finally {
      if (mode !== 'background') clearTimeout(timer);
      else timer.unref();
    }
  }
}
