/** `portcullis start`: the whole system on this machine, from the package `@portcullis/system`. */

import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { pathToFileURL } from 'node:url';
import { CommandError } from '../failures.js';

const SYSTEM_PACKAGE = '@portcullis/system';

/** The folder of this package. Tests run the sources, which are one folder less deep than what is compiled. */
const PACKAGE = new URL(import.meta.url.endsWith('.ts') ? '../../' : '../../../', import.meta.url);

/** The folder around this package: `node_modules`, or a clone, whose root is the package of the system. */
const SURROUNDINGS = new URL('../', PACKAGE);

/** The flags that set ports, and the ports without them. A test compares them with those of the system. */
export const START_FLAGS = [
  { flag: '--auth-port', what: 'auth', port: 50_051 },
  { flag: '--inventory-port', what: 'inventory-1', port: 50_052 },
  { flag: '--inventory-2-port', what: 'inventory-2', port: 50_054 },
  { flag: '--payment-port', what: 'payment', port: 50_053 },
  { flag: '--nats-port', what: 'nats-server', port: 4_222 },
  { flag: '--postgres-port', what: 'PostgreSQL', port: 55_432 },
] as const;

/** Variables of the command line, which may be set while a system is started. */
export const OWN_VARIABLES = [
  'PORTCULLIS_ADDRESS',
  'PORTCULLIS_CONFIG',
  'PORTCULLIS_NATS_URL',
  'PORTCULLIS_PASSWORD_FILE',
] as const;

/** What `@portcullis/system/start` exports. */
interface SystemModule {
  runStart(settings: {
    readonly command: string;
    readonly words: readonly string[];
    readonly dataFolder: string;
    readonly otherVariables: readonly string[];
    readonly examples: 'portcullis';
  }): Promise<void>;
}

/** Runs the system until a signal. @throws CommandError when its package is missing, or when it cannot be started */
export async function startSystem(words: readonly string[]): Promise<void> {
  const { runStart } = (await import(findSystem().href)) as SystemModule;
  try {
    await runStart({
      command: 'portcullis start',
      words,
      dataFolder: '.portcullis',
      otherVariables: OWN_VARIABLES,
      examples: 'portcullis',
    });
  } catch (error) {
    if (error instanceof Error && error.name === 'SystemError') {
      throw new CommandError(error.message, { cause: error });
    }
    throw error;
  }
}

/**
 * The module of the system's package that is installed beside this one.
 *
 * @param surroundings - the folder in which to look, as a URL that ends with a slash
 * @throws CommandError that says what to install
 */
export function findSystem(surroundings = SURROUNDINGS): URL {
  const require = createRequire(new URL('portcullis.js', surroundings));
  const version = versionIn(new URL('package.json', PACKAGE));
  let manifest: string;
  try {
    manifest = require.resolve(`${SYSTEM_PACKAGE}/package.json`);
  } catch (cause) {
    throw new CommandError(
      `portcullis start needs the package ${SYSTEM_PACKAGE}, which is not installed beside portcullis.\n` +
        `Install it with npm install ${SYSTEM_PACKAGE}@${version}`,
      { cause },
    );
  }
  const installed = versionIn(pathToFileURL(manifest));
  if (installed !== version) {
    throw new CommandError(
      `portcullis start ${version} needs version ${version} of ${SYSTEM_PACKAGE}, and ${installed} is installed.\n` +
        `Install it with npm install ${SYSTEM_PACKAGE}@${version}`,
    );
  }
  return pathToFileURL(require.resolve(`${SYSTEM_PACKAGE}/start`));
}

function versionIn(manifest: URL): string {
  return (JSON.parse(readFileSync(manifest, 'utf8')) as { version: string }).version;
}
