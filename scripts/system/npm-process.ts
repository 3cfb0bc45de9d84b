/** The npm that runs this process. It forwards signals, but not SIGKILL. */

import { parentOf } from './process-identity.js';

const CHECK_MS = 500;

/** `npx` and `npm run` start a command in a shell, whose command line is such as `sh -c 'portcullis' start`. */
const SHELL = /^(?:\S*\/)?\w*sh -c /;

/** Calls a function when npm has ended without a signal to this process. Without npm, it is never called. */
export async function onNpmGone(notify: () => void): Promise<void> {
  if (process.env['npm_lifecycle_event'] === undefined) return;
  const parent = process.ppid;
  const found = await parentOf(parent);
  // A shell that replaces itself by the command leaves npm as the parent.
  const npm = found !== undefined && SHELL.test(found.command) ? found.parent : undefined;
  const isGone = async (): Promise<boolean> =>
    process.ppid !== parent || (npm !== undefined && (await parentOf(parent))?.parent !== npm);
  const timer = setInterval(async () => {
    if (!(await isGone())) return;
    clearInterval(timer);
    notify();
  }, CHECK_MS);
  timer.unref();
}
