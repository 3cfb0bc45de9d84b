/** The system from its package: installed in an empty folder, started, called as its output says, and stopped. */

import { type ChildProcess, execFile, spawn } from 'node:child_process';
import { readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { isPortFree } from '../../scripts/system/ports.js';
import { makeTemporaryFolder } from '../../scripts/system/temporary-folder.js';
import { holdsWithin, waitUntil } from '../shared/waiting.js';
import type { Packages } from './pages.js';

/** Maximum time for one command, in milliseconds. The first start may download nats-server. */
const COMMAND_MS_MAX = 300_000;
const GONE_MS_MAX = 15_000;
const POLL_MS = 100;

/** The exit code of a command that auth has logged out. */
const LOGGED_OUT = 3;

interface SystemOptions {
  /** Tarballs by package; the first start lacks that of the system. */
  readonly packages: Packages & { readonly '@portcullis/system': string };
  readonly environment: NodeJS.ProcessEnv;
  readonly onStep: (text: string) => void;
}

/**
 * Runs a system as someone does who has nothing but npm packages.
 *
 * @returns what did not happen as it should
 */
export async function trySystem({ packages, environment, onStep }: SystemOptions): Promise<string[]> {
  const folder = await makeTemporaryFolder();
  const project = folder.path;
  // `portcullis start` accepts the variables of the command line, which a shell may have set.
  const env = { ...environment, PORTCULLIS_CONFIG: join(project, 'contexts.json') };
  const run = (program: string, words: readonly string[]) => outcomeOf(program, words, { cwd: project, env });
  const install = async (...files: readonly string[]): Promise<void> => {
    const { code, output } = await run('npm', ['install', '--no-audit', '--no-fund', ...files]);
    if (code !== 0) throw new Error(`npm install ${files.join(' ')}:\n${output}`);
  };
  try {
    const { '@portcullis/system': system, ...others } = packages;
    onStep('installing portcullis without @portcullis/system');
    await install(...Object.values(others));
    const without = await run('npx', ['portcullis', 'start']);
    onStep('installing @portcullis/system');
    await install(system);
    return [
      ...(without.code === 1 && without.output.includes('npm install @portcullis/system')
        ? []
        : [`start without the package: code ${without.code}\n${without.output}`]),
      ...(await dependencyFaults(join(project, 'node_modules', '@portcullis', 'system'))),
      ...(await useSystem(project, env, onStep)),
    ];
  } finally {
    await folder.remove();
  }
}

async function useSystem(
  project: string,
  env: NodeJS.ProcessEnv,
  onStep: (text: string) => void,
): Promise<string[]> {
  onStep('npx portcullis start --free-ports');
  const start = begin('npx', ['portcullis', 'start', '--free-ports'], { cwd: project, env });
  const faults: string[] = [];
  try {
    await waitUntil(() => /Ctrl-C stops/.test(start.output()) || start.hasEnded(), {
      timeoutMs: COMMAND_MS_MAX,
      pollMs: POLL_MS,
      failure: () => `the system was not ready:\n${start.output()}`,
    });
    if (start.hasEnded()) return [`npx portcullis start ended:\n${start.output()}`];
    onStep('running the printed examples');
    faults.push(...(await exampleFaults(start.output(), project, env)));
    const pids = await recordedPids(project);
    if (pids.length < 6) faults.push(`${pids.length} processes are recorded`);
    onStep('Ctrl-C');
    start.interrupt();
    // npx ends with the signal that it has received itself.
    const code = await start.ended;
    if ((code !== 0 && code !== 'SIGINT') || !start.output().includes('nothing is left running')) {
      faults.push(`after SIGINT: code ${code}\n${start.output()}`);
    }
    faults.push(...(await leftovers(project, pids, portsIn(start.output()))));
  } finally {
    start.kill();
  }
  return [...faults, ...(await dataFaults(project))];
}

/** The commands that the start has printed for portcullis, pasted into a shell. The last one is refused: revoked. */
async function exampleFaults(output: string, cwd: string, env: NodeJS.ProcessEnv): Promise<string[]> {
  const [, pasted = ''] = /^or with portcullis.*?\n\n(.*)^Ctrl-C/ms.exec(output) ?? [];
  const { code, output: said } = await outcomeOf('bash', ['-euo', 'pipefail', '-c', pasted], { cwd, env });
  const expected = ['LAMP-01', 'RESERVATION_STATE_ACTIVE', 'TOKEN_REVOKED'];
  const missing = expected.filter((text) => !said.includes(text));
  return code === LOGGED_OUT && missing.length === 0
    ? []
    : [`the printed examples: code ${code}, without ${missing.join(', ')}\n${pasted}\n${said}`];
}

/** Processes of the system that run, and ports that are in use, after it has stopped. */
async function leftovers(
  project: string,
  pids: readonly number[],
  ports: readonly number[],
): Promise<string[]> {
  let left: string[] = [];
  const look = async (): Promise<boolean> => {
    const { stdout } = await promisify(execFile)('ps', ['-A', '-o', 'pid=,args=']);
    const processes = stdout.split('\n').filter((line) => {
      return line.includes(project) || pids.includes(Number.parseInt(line, 10));
    });
    const used: string[] = [];
    for (const port of ports) if (!(await isPortFree(port))) used.push(`port ${port}`);
    left = [...processes, ...used];
    return left.length === 0;
  };
  // The reaper ends as soon as it has noticed that the launcher has gone.
  await holdsWithin(GONE_MS_MAX, POLL_MS, look);
  return left.map((one) => `left running: ${one}`);
}

async function recordedPids(project: string): Promise<number[]> {
  const record = await readFile(join(project, '.portcullis', 'processes.json'), 'utf8');
  return (JSON.parse(record) as { pid: number }[]).map(({ pid }) => pid);
}

function portsIn(output: string): number[] {
  return [...new Set([...output.matchAll(/127\.0\.0\.1:(\d+)/g)].map(([, port]) => Number(port)))];
}

/** The data are in the folder in which the command ran, hidden from git, and nowhere among the packages. */
async function dataFaults(project: string): Promise<string[]> {
  const own = await readdir(join(project, '.portcullis'));
  const missing = ['.gitignore', 'logs', 'nats', 'postgresql', 'secrets'].filter(
    (name) => !own.includes(name),
  );
  const packaged = await readdir(join(project, 'node_modules', '@portcullis', 'system'));
  return [
    ...(missing.length === 0 ? [] : [`.portcullis lacks ${missing.join(', ')}`]),
    ...(packaged.includes('.portcullis') ? ['the data are in the package'] : []),
  ];
}

/** An import of compiled code, or `resolve` of a package. */
const IMPORT = /(?:^(?:import|export)\b.*\bfrom |^} from |^import |\bimport\(|\bresolve\()'([^'\n]+)'/gm;

/** Dependencies that commands of a clone alone import: `npm run credentials` makes keys for the broker. */
const OF_A_CLONE = new Set(['nats']);

/** Files that a packed file imports and that are not packed, and packages that do not agree with its dependencies. */
async function dependencyFaults(folder: string): Promise<string[]> {
  const manifest = await readFile(join(folder, 'package.json'), 'utf8');
  const { dependencies, peerDependencies } = JSON.parse(manifest) as Record<
    'dependencies' | 'peerDependencies',
    Readonly<Record<string, string>>
  >;
  const allowed = new Set(Object.keys({ ...dependencies, ...peerDependencies }));
  const files = await readdir(folder, { recursive: true });
  const faults: string[] = [];
  const used = new Set<string>();
  for (const file of files.filter((name) => name.endsWith('.js') && !name.includes('node_modules'))) {
    const code = await readFile(join(folder, file), 'utf8');
    for (const [, target = ''] of code.matchAll(IMPORT)) {
      if (target.startsWith('node:')) continue;
      if (target.startsWith('.')) {
        if (!files.includes(join(file, '..', target)))
          faults.push(`${file} imports ${target}, which is not packed`);
        continue;
      }
      const name = /^(?:@[^/]+\/)?[^/]+/.exec(target)?.[0] ?? target;
      used.add(name);
      if (!allowed.has(name)) faults.push(`${file} imports ${name}, which is not a dependency`);
    }
  }
  const unused = Object.keys(dependencies).filter((name) => !used.has(name) && !OF_A_CLONE.has(name));
  return [...faults, ...unused.map((name) => `no packed file imports the dependency ${name}`)];
}

interface Surroundings {
  readonly cwd: string;
  readonly env: NodeJS.ProcessEnv;
}

interface Started {
  output(): string;
  hasEnded(): boolean;
  /** The exit code, or the signal that has ended it. */
  readonly ended: Promise<number | NodeJS.Signals | null>;
  /** What Ctrl-C does: SIGINT to the whole group of processes. */
  interrupt(): void;
  kill(): void;
}

function begin(program: string, words: readonly string[], { cwd, env }: Surroundings): Started {
  const child = spawn(program, words, { cwd, env, stdio: ['ignore', 'pipe', 'pipe'], detached: true });
  let output = '';
  let hasEnded = false;
  for (const stream of [child.stdout, child.stderr]) {
    stream.setEncoding('utf8').on('data', (text: string) => {
      output += text;
    });
  }
  const ended = new Promise<number | NodeJS.Signals | null>((resolve, reject) => {
    child.once('error', reject);
    child.once('close', (code, by) => {
      hasEnded = true;
      resolve(code ?? by);
    });
  });
  return {
    output: () => output,
    hasEnded: () => hasEnded,
    ended,
    interrupt: () => signal(child, 'SIGINT'),
    kill: () => {
      if (!hasEnded) signal(child, 'SIGKILL');
    },
  };
}

function signal({ pid }: ChildProcess, name: NodeJS.Signals): void {
  if (pid !== undefined) process.kill(-pid, name);
}

async function outcomeOf(
  program: string,
  words: readonly string[],
  surroundings: Surroundings,
): Promise<{ readonly code: number | NodeJS.Signals | null; readonly output: string }> {
  const started = begin(program, words, surroundings);
  const timer = setTimeout(started.kill, COMMAND_MS_MAX);
  try {
    const code = await started.ended;
    return { code, output: started.output() };
  } finally {
    clearTimeout(timer);
  }
}
