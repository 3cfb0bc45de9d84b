/** The projects in examples/, installed from the packed package outside of the repository, and run with several Nodes. */

import { execFile } from 'node:child_process';
import { chmod, cp, mkdir, readdir, readFile, writeFile } from 'node:fs/promises';
import { delimiter, join } from 'node:path';
import { promisify } from 'node:util';
import { PROJECT_FOLDER } from '../../scripts/system/project.js';

const run = promisify(execFile);

const EXAMPLES = join(PROJECT_FOLDER, 'examples');
const PACKAGE = '@portcullis/guard';

/** Maximum time for one command of a project, in milliseconds. */
const COMMAND_MS_MAX = 300_000;

/** Maximum size of what one command prints, in bytes. */
const OUTPUT_BYTES_MAX = 64 * 1024 * 1024;

/** A project that was installed from the tarball. */
export interface Project {
  readonly name: string;
  readonly folder: string;
}

/** A Node that runs projects. */
export interface NodeVersion {
  /** Such as `v24.4.1`. */
  readonly version: string;
  /** The folder of its program. */
  readonly bin: string;
}

/** The names of the projects in examples/. */
export async function exampleNames(): Promise<string[]> {
  const entries = await readdir(EXAMPLES, { withFileTypes: true });
  return entries.filter((entry) => entry.isDirectory()).map(({ name }) => name);
}

/** How a project is installed. */
interface InstallOptions {
  readonly tarball: string;
  /** Where the copy of the project is made. */
  readonly folder: string;
  /** Runs npm, the generators and the compiler. */
  readonly node: NodeVersion;
  readonly environment: NodeJS.ProcessEnv;
}

/**
 * Copies a project out of the repository, installs it with the tarball, generates and compiles it.
 *
 * @throws Error with what a command has printed, when it fails
 */
export async function install(
  name: string,
  { tarball, folder, node, environment }: InstallOptions,
): Promise<Project> {
  const env = environmentWith(node, environment);
  await cp(join(EXAMPLES, name), folder, {
    recursive: true,
    filter: (path) => !/[/\\](node_modules|dist|gen)$/.test(path),
  });
  const file = join(folder, 'package.json');
  const manifest = JSON.parse(await readFile(file, 'utf8')) as { dependencies: Record<string, string> };
  manifest.dependencies[PACKAGE] = `file:${tarball}`;
  await writeFile(file, JSON.stringify(manifest, null, 2));
  await command('npm', ['install', '--no-audit', '--no-fund', '--no-package-lock'], folder, env);
  await command('npm', ['run', 'build'], folder, env);
  return { name, folder };
}

/** Fetches the newest Node of a major version from npm, whose packages contain the program itself. */
export async function fetchNode(major: number, folder: string): Promise<NodeVersion> {
  const name = `node-${process.platform}-${process.arch}`;
  const home = join(folder, `node-${major}`);
  await mkdir(home, { recursive: true });
  await writeFile(join(home, 'package.json'), '{ "private": true }');
  await command('npm', ['install', '--no-audit', '--no-fund', `${name}@${major}`], home);
  const bin = join(home, 'node_modules', name, 'bin');
  await chmod(join(bin, 'node'), 0o755);
  const { stdout } = await run(join(bin, 'node'), ['--version']);
  return { version: stdout.trim(), bin };
}

/**
 * Runs the tests of a project with a Node.
 *
 * @throws Error with what the tests have printed, when one fails
 */
export async function test(
  project: Project,
  node: NodeVersion,
  environment: NodeJS.ProcessEnv,
): Promise<void> {
  await command('npm', ['test'], project.folder, environmentWith(node, environment));
}

/** An environment in which programs find this Node before any other. npm is a script, so it runs with it, too. */
function environmentWith({ bin }: NodeVersion, environment: NodeJS.ProcessEnv): NodeJS.ProcessEnv {
  return { ...environment, PATH: `${bin}${delimiter}${environment['PATH'] ?? ''}` };
}

async function command(
  program: string,
  words: readonly string[],
  cwd: string,
  env?: NodeJS.ProcessEnv,
): Promise<void> {
  try {
    await run(program, words, { cwd, env, timeout: COMMAND_MS_MAX, maxBuffer: OUTPUT_BYTES_MAX });
  } catch (error) {
    if (!(error instanceof Error && 'stdout' in error && 'stderr' in error)) throw error;
    const said = `${String(error.stdout)}${String(error.stderr)}`.trim();
    throw new Error(`${program} ${words.join(' ')} in ${cwd}:\n${said}`, { cause: error });
  }
}
