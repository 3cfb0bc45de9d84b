/** What commands write and ask: results on standard output, everything else on standard error. */

import password from '@inquirer/password';
import { CommandError, EXIT, printable, printableJson } from './failures.js';

/** Maximum length of what is read from standard input, in bytes. */
const INPUT_BYTES_MAX = 1024 * 1024;

/** The streams of a command. */
export interface Streams {
  readonly input: NodeJS.ReadableStream & { readonly isTTY?: boolean };
  readonly output: NodeJS.WritableStream;
  readonly notes: NodeJS.WritableStream;
  /** Width of the terminal, in characters; undefined where the output is not a terminal. */
  readonly columns?: number | undefined;
  /** Whether the output may have colours. */
  readonly hasColor?: boolean | undefined;
  /** Aborted by Ctrl-C from the first call on; without a call, Ctrl-C ends the process. */
  readonly interrupted?: (() => AbortSignal) | undefined;
}

/** The terminal of a command. */
export interface Terminal extends Streams {
  /** Prints the result as JSON instead of tables. */
  readonly json: boolean;
}

/** The streams of this process. Colours appear on a terminal only, and not with `NO_COLOR` (no-color.org). */
export function processStreams(process: NodeJS.Process): Streams {
  const { stdin: input, stdout: output, stderr: notes, env } = process;
  const isPlain = output.isTTY !== true || env['TERM'] === 'dumb';
  return {
    input,
    output,
    notes,
    columns: output.isTTY === true ? output.columns : undefined,
    hasColor: !isPlain && (env['NO_COLOR'] ?? '') === '',
    interrupted: () => {
      const controller = new AbortController();
      process.once('SIGINT', () => controller.abort());
      return controller.signal;
    },
  };
}

/** A signal that Ctrl-C aborts. */
export function interruptOf(terminal: Terminal): AbortSignal {
  return terminal.interrupted?.() ?? new AbortController().signal;
}

/** Writes the result of a command. */
export function writeResult(terminal: Terminal, value: object, text: () => string): void {
  const result = terminal.json
    ? printableJson(JSON.stringify(plain(value), undefined, 2))
    : withoutControls(text());
  if (result !== '') terminal.output.write(`${result}\n`);
}

/** JSON has no large integers, and bytes are hexadecimal. Buffers and dates have a `toJSON` that a replacer sees too late. */
function plain(value: unknown): unknown {
  if (typeof value === 'bigint') return value.toString();
  if (value instanceof Date) return value.toISOString();
  if (value instanceof Uint8Array) return Buffer.from(value).toString('hex');
  if (Array.isArray(value)) return value.map(plain);
  if (typeof value !== 'object' || value === null) return value;
  return Object.fromEntries(Object.entries(value).map(([name, member]) => [name, plain(member)]));
}

/** Tells the person something that is not part of the result. */
export function note(terminal: Terminal, text: string): void {
  terminal.notes.write(`${printable(text)}\n`);
}

/**
 * Asks for a password without showing it.
 *
 * @throws CommandError where there is no terminal to ask at
 */
export async function askPassword(terminal: Terminal, message: string): Promise<string> {
  if (terminal.input.isTTY !== true) {
    throw new CommandError('There is no terminal to ask for the password: use --password-stdin.', {
      exitCode: EXIT.usage,
    });
  }
  try {
    return await password({ message }, { input: terminal.input, output: terminal.notes });
  } catch (error) {
    if (error instanceof Error && error.name === 'ExitPromptError') {
      throw new CommandError('Interrupted.', { exitCode: EXIT.interrupted, cause: error });
    }
    throw error;
  }
}

/** Standard input as text, without the last line break. @throws CommandError when it is too long */
export async function readInput({ input }: Terminal): Promise<string> {
  const parts: Buffer[] = [];
  let length = 0;
  for await (const part of input) {
    const bytes = Buffer.from(part as Buffer);
    length += bytes.length;
    if (length > INPUT_BYTES_MAX)
      throw new CommandError('Standard input is too long.', { exitCode: EXIT.usage });
    parts.push(bytes);
  }
  return Buffer.concat(parts)
    .toString('utf8')
    .replace(/\r?\n$/, '');
}

/** Writes one result of many: a line of text, or a line of JSON. */
export function writeLine(terminal: Terminal, value: object, text: () => string): void {
  terminal.output.write(
    `${terminal.json ? printableJson(JSON.stringify(plain(value))) : withoutControls(text())}\n`,
  );
}

/** Leaves the colours of tables, and no other control character. */
function withoutControls(text: string): string {
  const [first = '', ...rest] = text.split('\u001b');
  const colored = rest.map((part) => {
    const color = /^\[(?:0|3[123])m/.exec(part)?.[0];
    return color === undefined
      ? printable(`\u001b${part}`)
      : `\u001b${color}${printable(part.slice(color.length))}`;
  });
  return printable(first) + colored.join('');
}
