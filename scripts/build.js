/**
 * `npm run build`: compiles the sources to `dist/`, and the packages to `interceptors/dist/`, `gate/dist/` and
 * `cli/dist/`, when they have changed since the last build. This file and `run.js` are JavaScript because they run before anything is compiled.
 */

import { spawn } from 'node:child_process';
import { createHash } from 'node:crypto';
import { cpSync, existsSync, readdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { dirname, join, relative } from 'node:path';
import { fileURLToPath } from 'node:url';

/** The project's folder. */
export const PROJECT_FOLDER = fileURLToPath(new URL('..', import.meta.url));

/** What is compiled; the packages are compiled to folders of their own. */
const SOURCE_FOLDERS = ['services', 'scripts', 'proofs', join('proto', 'gen')];
const PACKAGES = ['interceptors', 'gate', 'cli'];
const PACKAGE_FOLDERS = PACKAGES.flatMap((name) => [join(name, 'src'), join(name, 'gen')]);
const SETTINGS = [
  'package.json',
  'tsconfig.json',
  'tsconfig.build.json',
  ...PACKAGES.flatMap((name) => [join(name, 'package.json'), join(name, 'tsconfig.build.json')]),
];
/** Where the packages are compiled to. */
const PACKAGE_OUTPUTS = PACKAGES.map((name) => join(name, 'dist'));
const OUTPUT = 'dist';
/** Files beside the sources that programs read: migrations, the descriptor image, recordings, files for browsers. */
const ASSET = /\.(sql|binpb|jsonl|css|svg)$/;
/** The hash of the sources that the output was compiled from. */
const STAMP = join(OUTPUT, '.sources');

/** A build that failed; the message is meant for the person at the terminal. */
export class BuildError extends Error {}

/**
 * Compiles what has changed since the last build. The output is replaced as a whole, so that a program never loads one
 * half from before and the other from after.
 *
 * @returns {Promise<boolean>} whether anything was compiled
 * @throws {BuildError}
 */
export async function buildIfOutdated() {
  const sources = hashOfSources();
  if (sources === stampOfOutput()) return false;
  if (!existsSync(compiler())) {
    throw new BuildError('Not compiled: TypeScript is not installed. Run npm ci without --omit=dev.');
  }
  for (const output of PACKAGE_OUTPUTS) {
    await compile(join(dirname(output), 'tsconfig.build.json'), building(output));
  }
  await compile('tsconfig.build.json', building(OUTPUT));
  copyAssets(building(OUTPUT));
  writeFileSync(join(PROJECT_FOLDER, building(OUTPUT), relative(OUTPUT, STAMP)), sources);
  for (const output of PACKAGE_OUTPUTS) replace(output);
  replace(OUTPUT);
  return true;
}

/** Where a folder is built before it replaces the former one. @param {string} folder */
function building(folder) {
  return `${folder}.${process.pid}`;
}

function compiler() {
  return join(PROJECT_FOLDER, 'node_modules', 'typescript', 'bin', 'tsc');
}

/**
 * @param {string} settings
 * @param {string} output
 */
async function compile(settings, output) {
  const words = [compiler(), '--project', settings, '--outDir', output];
  const child = spawn(process.execPath, words, { cwd: PROJECT_FOLDER, stdio: ['ignore', 'pipe', 'inherit'] });
  let said = '';
  child.stdout.on('data', (chunk) => {
    said += chunk;
  });
  /** @type {number | null} */
  const code = await new Promise((resolve, reject) => {
    child.once('error', reject);
    child.once('close', resolve);
  });
  if (code === 0) return;
  rmSync(join(PROJECT_FOLDER, output), { recursive: true, force: true });
  throw new BuildError(`The sources do not compile:\n${said}`);
}

/** @param {string} output */
function copyAssets(output) {
  for (const file of filesBelow(SOURCE_FOLDERS).filter((name) => ASSET.test(name))) {
    cpSync(join(PROJECT_FOLDER, file), join(PROJECT_FOLDER, output, file));
  }
}

/** @param {string} folder */
function replace(folder) {
  const path = join(PROJECT_FOLDER, folder);
  const former = `${path}.former.${process.pid}`;
  if (existsSync(path)) renameSync(path, former);
  renameSync(join(PROJECT_FOLDER, building(folder)), path);
  rmSync(former, { recursive: true, force: true });
}

function stampOfOutput() {
  const stamp = join(PROJECT_FOLDER, STAMP);
  const isComplete = [STAMP, ...PACKAGE_OUTPUTS].every((path) => existsSync(join(PROJECT_FOLDER, path)));
  return isComplete ? readFileSync(stamp, 'utf8') : undefined;
}

/** By content, because a checkout changes the times of files in either direction. */
function hashOfSources() {
  const hash = createHash('sha256');
  for (const file of [...SETTINGS, ...filesBelow([...SOURCE_FOLDERS, ...PACKAGE_FOLDERS])]) {
    const content = readFileSync(join(PROJECT_FOLDER, file));
    hash.update(`${file}\n${content.length}\n`).update(content);
  }
  return hash.digest('hex');
}

/** @param {readonly string[]} folders */
function filesBelow(folders) {
  return folders.flatMap((folder) =>
    readdirSync(join(PROJECT_FOLDER, folder), { recursive: true, encoding: 'utf8' })
      .filter((file) => file.endsWith('.ts') || ASSET.test(file))
      .map((file) => join(folder, file))
      .sort(),
  );
}
