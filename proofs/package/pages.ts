/** Pages with commands, carried out word by word against a system of their own: the tutorial, and examples. */

import { mkdir, readdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { findFreePort } from '../../scripts/system/ports.js';
import { type System, startSystem } from '../../scripts/system/system.js';
import { PageRun, type Step, stepsOf } from '../shared/page-steps.js';

/** What a program in the background prints when it can be called. */
const READY = /^listening on port/;

/** A port of the reader's own services, on a page and in its programs. */
const OWN_PORT = /(?<=localhost:)5006\d/g;

/** The first block that needs a running system. */
const NEEDS_SYSTEM = /portcullis login/;

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
 * from the environment, and the services listen on free ports. Those of the page are in the range from which the kernel
 * takes ports for connections, so one of hundreds of runs would find its port taken.
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
  const run = new Run(options, await freePorts(steps));
  let ms = 0;
  try {
    await run.rewriteSources();
    for (const step of steps) {
      if (step.kind === 'commands' && NEEDS_SYSTEM.test(step.text)) await run.startSystem();
      const beganMs = performance.now();
      await run.page.carryOut(step);
      ms += performance.now() - beganMs;
    }
    return ms;
  } finally {
    await run.stop();
  }
}

/** A free port for each that the page names. */
async function freePorts(steps: readonly Step[]): Promise<ReadonlyMap<string, string>> {
  const ports = new Map<string, string>();
  for (const step of steps) {
    const text = step.kind === 'file' ? step.content : step.text;
    for (const [port] of text.matchAll(OWN_PORT)) {
      while (!ports.has(port)) {
        const free = String(await findFreePort());
        if (![...ports.values()].includes(free)) ports.set(port, free);
      }
    }
  }
  return ports;
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

class Run {
  readonly page: PageRun;
  readonly #options: PageOptions;
  readonly #ports: ReadonlyMap<string, string>;
  #system: System | undefined;

  /** @param ports - where services listen, by the port that the page names */
  constructor(options: PageOptions, ports: ReadonlyMap<string, string>) {
    this.#options = options;
    this.#ports = ports;
    this.page = new PageRun({
      project: options.project,
      stateFile: join(options.folder, 'state'),
      ready: READY,
      rewrite: (text) => this.#withPorts(this.#withTarballs(text)),
      environmentFor: (text) => this.#environmentFor(text),
      onStep: options.onStep,
    });
  }

  /** Programs that were in the project before the page began listen on the free ports, too. */
  async rewriteSources(): Promise<void> {
    const { project } = this.#options;
    for (const entry of await readdir(project, { recursive: true, withFileTypes: true })) {
      const path = join(entry.parentPath, entry.name);
      if (!entry.isFile() || !entry.name.endsWith('.ts') || path.includes('/node_modules/')) continue;
      const source = await readFile(path, 'utf8');
      const rewritten = this.#withPorts(source);
      if (rewritten !== source) await writeFile(path, rewritten);
    }
  }

  async startSystem(): Promise<void> {
    if (this.#system !== undefined) return;
    this.#options.onStep('starting Portcullis');
    const dataDir = join(this.#options.folder, 'data');
    this.#system = await startSystem({ dataDir, ports: 'free', ephemeral: true });
  }

  /** Stops what runs in the background, and the system. */
  async stop(): Promise<void> {
    this.page.stop();
    await this.#system?.stop();
  }

  #withPorts(text: string): string {
    return text.replace(OWN_PORT, (port) => this.#ports.get(port) ?? port);
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
