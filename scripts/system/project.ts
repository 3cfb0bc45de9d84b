/** The project's folder, and its compiled programs, whether this code runs compiled or not, in the clone or in a package. */

import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

/** False in tests, which run the sources; the services that they start run compiled all the same. */
const IS_COMPILED = !import.meta.url.endsWith('.ts');

/** The project's folder: the clone, or the installed package `@portcullis/system`. */
export const PROJECT_FOLDER = fileURLToPath(new URL(IS_COMPILED ? '../../..' : '../..', import.meta.url));

/** The data folder of `npm start` unless a variable names another one. */
export const DATA_FOLDER_DEFAULT = join(PROJECT_FOLDER, '.portcullis');

/**
 * How the heap of a service may grow: a young generation of twice V8's default, and an old one that is collected when it
 * has grown by three quarters. Decisions 0028 and 0073 explain the figures.
 */
export const HEAP_ARGUMENTS = ['--max-semi-space-size=32', '--heap-growing-percent=75'];

/** Arguments of Node that run a compiled program, such as `services/auth/main`. */
export function programArguments(program: string): readonly string[] {
  return ['--enable-source-maps', ...HEAP_ARGUMENTS, join(PROJECT_FOLDER, 'dist', `${program}.js`)];
}
