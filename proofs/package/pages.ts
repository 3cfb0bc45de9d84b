/** Pages with commands, carried out word by word against a system of their own: the tutorial, and examples. */

import { spawn } from 'node:child_process';
import { mkdir, readFile, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { createInterface } from 'node:readline';
import { type System, startSystem } from '../../scripts/system/system.js';

/** Maximum time for one block of commands, in milliseconds. */
const BLOCK_MS_MAX = 300_000;

/** What a program in the background prints when it can be called. */
const READY = /^listening on port/;

/** The first block that needs a running system. */
const NEEDS_SYSTEM = /portcullis login/;

/** A step of a page. */
type Step =
  | { readonly kind: 'file'; readonly name: string; readonly content: string }
  | { readonly kind: 'commands'; readonly text: string; readonly mode: '' | 'background' | 'fails' }
  | { readonly kind: 'expect'; readonly text: string };

/** What a page took. */
export interface PageFigures {
  /** Time of all steps, without the start of the system, in seconds. */
  readonly seconds: number;
}

/** What the tutorial took. */
export interface TutorialFigures extends PageFigures {
  /** Blocks of commands until the service runs. */
  readonly commands: number;
  /** Lines of the guard in the server. */
  readonly guardLines: number;
}

/** The tarballs, by the name under which pages install them; the command line comes with the gate. */
export type Packages = Readonly<Record<'@portcullis/guard' | '@portcullis/gate' | 'portcullis', string>>;

export interface PageOptions {
  /** The file with the page. */
  readonly page: string;
  /** A folder outside of the repository, for what the steps leave. */
  readonly folder: string;
  /** The folder below it in which the commands run; made if it is missing. */
  readonly project: string;
  readonly packages: Packages;
  readonly environment: NodeJS.ProcessEnv;
  readonly onStep: (text: string) => void;
}

/**
 * Does what a page says. The only differences: the packages are installed from tarballs, addresses and passwords come
 * from the environment.
 *
 * @throws Error that names the step and what it has printed
 */
export async function followPage(options: PageOptions): Promise<PageFigures> {
  return { seconds: (await carryOut(options, await readSteps(options.page))) / 1000 };
}

/** Does what the tutorial says, and counts what it asks of the reader. @throws Error as {@link followPage} */
export async function followTutorial(options: PageOptions): Promise<TutorialFigures> {
  const steps = await readSteps(options.page);
  return {
    seconds: (await carryOut(options, steps)) / 1000,
    commands: commandsUntilRunning(steps),
    guardLines: guardLinesOf(steps),
  };
}

async function readSteps(page: string): Promise<readonly Step[]> {
  return stepsOf(await readFile(page, 'utf8'));
}

/** @returns the time of all steps, in milliseconds */
async function carryOut(options: PageOptions, steps: readonly Step[]): Promise<number> {
  await Promise.all([options.folder, options.project].map((path) => mkdir(path, { recursive: true })));
  const run = new Run(options);
  let ms = 0;
  try {
    for (const step of steps) {
      if (step.kind === 'commands' && NEEDS_SYSTEM.test(step.text)) await run.startSystem();
      const beganMs = performance.now();
      await run.carryOut(step);
      ms += performance.now() - beganMs;
    }
    return ms;
  } finally {
    await run.stop();
  }
}

function commandsUntilRunning(steps: readonly Step[]): number {
  const commands = steps.filter((step) => step.kind === 'commands');
  return commands.findIndex(({ mode }) => mode === 'background') + 1;
}

/** From the guard's creation to the service that is added through it. */
function guardLinesOf(steps: readonly Step[]): number {
  const server = steps.find((step) => step.kind === 'file' && step.name === 'server.ts');
  if (server?.kind !== 'file') throw new Error('the tutorial has no server.ts');
  const lines = server.content.split('\n');
  const first = lines.findIndex((line) => line.includes('createGuard({'));
  const last = lines.findIndex((line) => line.includes('guard.addService('));
  return last - first + 1;
}

/** The blocks of the page: a file is named by the line before it. */
function stepsOf(page: string): Step[] {
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

class Run {
  readonly #options: PageOptions;
  readonly #background: (() => void)[] = [];
  #system: System | undefined;
  #printed = '';

  constructor(options: PageOptions) {
    this.#options = options;
  }

  async startSystem(): Promise<void> {
    if (this.#system !== undefined) return;
    this.#options.onStep('starting Portcullis');
    const dataDir = join(this.#options.folder, 'data');
    this.#system = await startSystem({ dataDir, ports: 'free', ephemeral: true });
  }

  async carryOut(step: Step): Promise<void> {
    if (step.kind === 'file') {
      const path = join(this.#options.project, step.name);
      await mkdir(dirname(path), { recursive: true });
      await writeFile(path, step.content);
    } else if (step.kind === 'expect') {
      if (!this.#printed.includes(step.text)) {
        throw new Error(`expected ${JSON.stringify(step.text)}, and the command printed:\n${this.#printed}`);
      }
    } else {
      this.#options.onStep(step.text.split('\n', 1)[0] ?? '');
      await this.#runCommands(step.text, step.mode);
    }
  }

  /** Stops what runs in the background, and the system. */
  async stop(): Promise<void> {
    for (const end of this.#background) end();
    await this.#system?.stop();
  }

  async #runCommands(text: string, mode: '' | 'background' | 'fails'): Promise<void> {
    const state = join(this.#options.folder, 'state');
    // Variables of one block are there in the next, as in a terminal.
    const script = `set -eua; touch ${state}; . ${state}\n${this.#withTarballs(text)}\nexport -p > ${state}`;
    const child = spawn('bash', ['-c', script], {
      cwd: this.#options.project,
      env: await this.#environmentFor(text),
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
    let printed = '';
    const isReady = new Promise<void>((resolve) => {
      for (const stream of [child.stdout, child.stderr]) {
        createInterface({ input: stream }).on('line', (line) => {
          printed += `${line}\n`;
          if (READY.test(line)) resolve();
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
        this.#background.push(kill);
        const first = await Promise.race([isReady.then(() => 'ready' as const), ended]);
        if (first !== 'ready') throw new Error(`${text.trim()} ended:\n${printed}`);
        return;
      }
      const code = await ended;
      this.#printed = printed;
      if ((code === 0) === (mode === 'fails')) {
        throw new Error(`${text.trim()}\n${mode === 'fails' ? 'should have failed' : 'failed'}:\n${printed}`);
      }
    } finally {
      if (mode !== 'background') clearTimeout(timer);
      else timer.unref();
    }
  }

  #withTarballs(text: string): string {
    if (!text.includes('npm install')) return text;
    return text
      .replace(/@portcullis\/guard(?=\s)/, this.#options.packages['@portcullis/guard'])
      .replace(
        /(?<=\s)portcullis(?=\s)/,
        `${this.#options.packages['@portcullis/gate']} ${this.#options.packages.portcullis}`,
      );
  }

  async #environmentFor(text: string): Promise<NodeJS.ProcessEnv> {
    const system = this.#system;
    const environment = {
      ...this.#options.environment,
      PORTCULLIS_CONFIG: join(this.#options.folder, 'config', 'contexts.json'),
    };
    if (system === undefined) return environment;
    const user = /login --user (\w+)/.exec(text)?.[1];
    const passwordFile = join(this.#options.folder, 'password');
    if (user === 'alice' || user === 'olga') await writeFile(passwordFile, system.users[user].password);
    return {
      ...environment,
      PORTCULLIS_ADDRESS: system.auth.address,
      PORTCULLIS_NATS_URL: natsUrlOf(system),
      PORTCULLIS_PASSWORD_FILE: passwordFile,
    };
  }
}

function natsUrlOf({ nats }: System): string {
  return `nats://${new URL(nats?.url('auth') ?? '').host}`;
}
