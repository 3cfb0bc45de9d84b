/** Pages with commands, carried out word by word against a system of their own: the tutorial, and examples. */

import { mkdir, readdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { findFreePort } from '../../scripts/system/ports.js';
import { type System, startSystem } from '../../scripts/system/system.js';
import { PageRun, type Step, stepsOf } from '../shared/page-steps.js';

/** What a program in the background prints when it can be called. */
const READY = /^listening on /;

/** A port of the reader's own services, on a page and in its programs. */
const OWN_PORT = /(?<=localhost:)5006\d/g;

/** The first block that needs a running system. */
const NEEDS_SYSTEM = /portcullis login/;

/** A program of the reader. */
const OWN_SOURCE = /^(?!.*(?:^|\/)(?:node_modules|gen|dist|test)\/).*(?<!\.test)\.ts$/;

/** What a page takes. */
export interface PageFigures {
  /** Time of all steps, without the start of the system, in seconds. */
  readonly seconds: number;
  /** Commands until the first service runs. Those that `&&` joins count each. */
  readonly commands: number;
  /** Lines of code about the guard, for each guard: those that create it, and those that use it. */
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
  const steps = stepsOf(await readFile(options.page, 'utf8'));
  const ms = await carryOut(options, steps);
  return {
    seconds: ms / 1000,
    commands: blocksUntilRunning(steps).flatMap(commandsIn).length,
    guardLines: await guardLinesIn(options.project),
  };
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

/** @returns the blocks up to the one that starts the first service */
function blocksUntilRunning(steps: readonly Step[]): string[] {
  const blocks = steps.filter((step) => step.kind === 'commands');
  const last = blocks.findIndex(({ mode }) => mode === 'background');
  return blocks.slice(0, last + 1).map(({ text }) => text);
}

function commandsIn(block: string): string[] {
  return block
    .replaceAll('\\\n', ' ')
    .split(/\n|&&/)
    .filter((command) => command.trim() !== '');
}

/** The statements that create guards, and every other line with a guard, divided by the number of guards. */
async function guardLinesIn(project: string): Promise<number> {
  const files = (await readdir(project, { recursive: true })).filter((file) => OWN_SOURCE.test(file));
  const sources = await Promise.all(files.map((file) => readFile(join(project, file), 'utf8')));
  let guards = 0;
  const rest = sources.join('\n').replace(/^[^\n]*\bcreateGuard\(\{.*?^\}\);$/gms, (statement) => {
    guards += 1;
    return statement.replace(/^.*$/gm, 'guard.');
  });
  return (rest.match(/^.*\bguard\..*$/gm)?.length ?? 0) / guards;
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
