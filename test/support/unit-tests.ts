/**
 * Runs the unit tests: those that start no process and need no database and no broker. What a test imports decides
 * whether it is one, and a test that starts a process all the same fails. Arguments are passed on to mocha.
 */

import { spawn } from 'node:child_process';
import { readdirSync, readFileSync } from 'node:fs';
import { dirname, join, relative } from 'node:path';
import { PROCESSES_VARIABLE } from './no-processes.js';
import { PROJECT_FOLDER } from './project-copy.js';

/** A test that reaches one of these through its imports is no unit test. */
const HEAVY_FILES = [
  'test/support/certificates.ts',
  'test/support/nats.ts',
  'test/support/postgres.ts',
  'test/support/programs.ts',
  'test/support/standby.ts',
  'test/support/system.ts',
  'scripts/system/nats.ts',
  'scripts/system/postgres.ts',
  'scripts/system/processes.ts',
  'scripts/system/system.ts',
];
const HEAVY_PACKAGES = ['node:child_process', 'nats', 'pg'];
/** Folders of code that a test uses to reach its subject; the subject's own imports do not count. */
const FOLLOWED = /^(test|scripts|proofs)\//;
/** Unit tests by their imports that are left out because they take long: random schedules, and the growth of memory. */
const LONG = ['test/proofs/simulate/run.test.ts', 'test/interceptors/reports/report-memory.test.ts'];

const IMPORT = /^(?:import|export)\s+(type\s+)?(?:(\{[^}]*\}|[\w*\s,]+?)\s+from\s+)?'([^']+)';/gm;

/** Every unit test, as a path from the root. */
export function unitTests(): string[] {
  return readdirSync(join(PROJECT_FOLDER, 'test'), { recursive: true, encoding: 'utf8' })
    .map((file) => `test/${file}`)
    .filter((file) => file.endsWith('.test.ts') && !file.startsWith('test/borders/tree/'))
    .filter((file) => !LONG.includes(file) && !reachesHeavy(file, new Set()))
    .sort();
}

function reachesHeavy(file: string, seen: Set<string>): boolean {
  if (seen.has(file)) return false;
  seen.add(file);
  return importsOf(file).some((imported) => {
    if (HEAVY_FILES.includes(imported) || HEAVY_PACKAGES.includes(imported)) return true;
    return FOLLOWED.test(imported) && reachesHeavy(imported, seen);
  });
}

/** The imports of a file at run time: packages by name, files as paths from the root. */
function importsOf(file: string): string[] {
  const source = readFileSync(join(PROJECT_FOLDER, file), 'utf8');
  const found: string[] = [];
  for (const [, type, names = '', from = ''] of source.matchAll(IMPORT)) {
    if (type !== undefined || bringsTypesOnly(names)) continue;
    if (!from.startsWith('.')) found.push(from);
    else found.push(relative('.', join(dirname(file), from)).replace(/\.js$/, '.ts'));
  }
  return found;
}

function bringsTypesOnly(names: string): boolean {
  const parts = names
    .replace(/[{}]/g, '')
    .split(',')
    .map((name) => name.trim())
    .filter((name) => name !== '');
  return parts.length > 0 && parts.every((name) => name.startsWith('type '));
}

const mocha = join(PROJECT_FOLDER, 'node_modules', 'mocha', 'bin', 'mocha.js');
const run = spawn(process.execPath, [mocha, ...process.argv.slice(2), ...unitTests()], {
  cwd: PROJECT_FOLDER,
  env: { ...process.env, [PROCESSES_VARIABLE]: 'none' },
  stdio: 'inherit',
});
run.on('exit', (code) => {
  process.exitCode = code ?? 1;
});
