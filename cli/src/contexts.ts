/** The sessions that commands share: systems with their tokens, in a file that only its owner can read. */

import { randomUUID } from 'node:crypto';
import { chmod, open, readFile, rename, rm } from 'node:fs/promises';
import { homedir } from 'node:os';
import { dirname, isAbsolute, join } from 'node:path';
import { z } from 'zod';
import { CommandError, EXIT } from './failures.js';
import { makeFolder } from './folders.js';
import { whileLocked } from './lock-file.js';

/** The name of a context when none is given. */
export const DEFAULT_CONTEXT = 'default';

/** The version of the file. Another version is not read, because it might mean something else. */
const FILE_VERSION = 1;

/** Only the owner may read the file and its folder. */
const FILE_MODE = 0o600;
const FOLDER_MODE = 0o700;

const contextSchema = z.strictObject({
  /** Auth's address, as a grpc-js target. */
  address: z.string().min(1),
  /** The CA certificate of auth (PEM). Plaintext without it. */
  caFile: z.string().optional(),
  /** A client certificate and its key (PEM). */
  certFile: z.string().optional(),
  keyFile: z.string().optional(),
  username: z.string(),
  /** The session, as auth names it. */
  sessionId: z.string(),
  accessToken: z.string(),
  accessTokenExpireTime: z.iso.datetime(),
  refreshToken: z.string(),
});

const fileSchema = z.strictObject({
  version: z.literal(FILE_VERSION),
  current: z.string(),
  contexts: z.record(z.string(), contextSchema),
});

/** A system, and the session of the user who has logged in to it. */
export type Context = z.infer<typeof contextSchema>;

type Contexts = z.infer<typeof fileSchema>;

/** The contexts of one user of this machine. */
export interface ContextStore {
  /** The path of the file. */
  readonly file: string;
  /**
   * The context of this name, or the current one.
   *
   * @throws CommandError when there is none
   */
  load(name: string | undefined): Promise<{ readonly name: string; readonly context: Context }>;
  /** Stores a context, and makes it the current one if `isCurrent` is set. */
  save(name: string, context: Context, options?: { readonly isCurrent?: boolean }): Promise<void>;
  /**
   * Stores the context if the session is still that of this refresh token: another command may have logged in or out
   * meanwhile, and its session is the one to keep.
   */
  replace(name: string, refreshToken: string, context: Context): Promise<void>;
  /** Removes a context; if it was the current one, another one becomes it. @returns false when there was none */
  remove(name: string): Promise<boolean>;
}

/**
 * The contexts in `$XDG_CONFIG_HOME/portcullis/contexts.json`, or below `~/.config`; `PORTCULLIS_CONFIG` names another
 * file.
 */
export function createContextStore(environment: NodeJS.ProcessEnv): ContextStore {
  const file = fileOf(environment);
  return {
    file,
    load: async (wanted) => {
      const { current, contexts } = await read(file);
      const name = wanted ?? current;
      const context = Object.hasOwn(contexts, name) ? contexts[name] : undefined;
      if (context !== undefined) return { name, context };
      throw new CommandError(
        wanted === undefined
          ? 'Nobody is logged in: begin with portcullis login.'
          : `There is no context ${wanted}: portcullis login --context ${wanted} makes one.`,
        { exitCode: EXIT.loggedOut },
      );
    },
    save: (name, context, { isCurrent = false } = {}) =>
      change(file, (known) => ({
        ...known,
        current: isCurrent || Object.keys(known.contexts).length === 0 ? name : known.current,
        contexts: { ...known.contexts, [name]: context },
      })),
    replace: (name, refreshToken, context) =>
      change(file, (known) => {
        const isSame =
          Object.hasOwn(known.contexts, name) && known.contexts[name]?.refreshToken === refreshToken;
        return isSame ? { ...known, contexts: { ...known.contexts, [name]: context } } : undefined;
      }),
    remove: async (name) => {
      let isKnown = false;
      await change(file, (known) => {
        isKnown = Object.hasOwn(known.contexts, name);
        if (!isKnown) return undefined;
        const { [name]: _, ...contexts } = known.contexts;
        const current =
          known.current === name ? (Object.keys(contexts)[0] ?? DEFAULT_CONTEXT) : known.current;
        return { ...known, current, contexts };
      });
      return isKnown;
    },
  };
}

function fileOf(environment: NodeJS.ProcessEnv): string {
  const given = environment['PORTCULLIS_CONFIG'];
  if (given !== undefined && given !== '') return given;
  const base = environment['XDG_CONFIG_HOME'];
  const folder =
    base !== undefined && isAbsolute(base) ? base : join(environment['HOME'] ?? homedir(), '.config');
  return join(folder, 'portcullis', 'contexts.json');
}

async function read(file: string): Promise<Contexts> {
  const text = await readFile(file, 'utf8').catch((error: NodeJS.ErrnoException) => {
    if (error.code === 'ENOENT') return undefined;
    throw new CommandError(`${file} cannot be read: ${error.message}`, {
      exitCode: EXIT.failed,
      cause: error,
    });
  });
  if (text === undefined) return { version: FILE_VERSION, current: DEFAULT_CONTEXT, contexts: {} };
  // The text and the errors of the parsers are never repeated: they quote tokens.
  const parsed = fileSchema.safeParse(jsonOf(text));
  if (parsed.success) return parsed.data;
  throw new CommandError(
    `${file} was written by another version, or was changed by hand: remove it, and log in again.`,
  );
}

function jsonOf(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

/**
 * Changes the file, while no other command does.
 *
 * @param work - the new content; undefined when nothing changes
 */
async function change(file: string, work: (known: Contexts) => Contexts | undefined): Promise<void> {
  await makeFolder(dirname(file), FOLDER_MODE);
  await whileLocked(`${file}.lock`, async () => {
    const changed = work(await read(file));
    if (changed !== undefined) await write(file, changed);
  });
}

/** Replaces the file as a whole, because other commands may read it. Only its owner can read it. */
async function write(file: string, contexts: Contexts): Promise<void> {
  const draft = `${file}.${randomUUID()}`;
  try {
    const handle = await open(draft, 'wx', FILE_MODE);
    try {
      // The umask may have taken rights away, and never adds any; a file system without rights ignores this.
      await chmod(draft, FILE_MODE);
      await handle.writeFile(`${JSON.stringify(contexts, null, 2)}\n`);
      await handle.sync();
    } finally {
      await handle.close();
    }
    await rename(draft, file);
  } catch (error) {
    await rm(draft, { force: true });
    throw error;
  }
}
