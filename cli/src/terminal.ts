/** What commands write and ask: results on standard output, everything else on standard error. */

import password from '@inquirer/password';
import { CommandError, EXIT, printable, printableJson } from './failures.js';

/** Maximum length of what is read from standard input, in bytes. */
const INPUT_BYTES_MAX = 1024 * 1024;

/** Spaces between two columns. */
const COLUMN_GAP = 2;

/** The streams of a command. */
export interface Terminal {
  readonly input: NodeJS.ReadableStream & { readonly isTTY?: boolean };
  readonly output: NodeJS.WritableStream;
  readonly notes: NodeJS.WritableStream;
  /** Prints the result as JSON instead of tables. */
  readonly json: boolean;
}

/** Writes the result of a command. */
export function writeResult(terminal: Terminal, value: object, text: () => string): void {
  const result = terminal.json ? printableJson(JSON.stringify(value, jsonValue, 2)) : printable(text());
  if (result !== '') terminal.output.write(`${result}\n`);
}

/** JSON has no large integers; dates and bytes have their usual forms. */
function jsonValue(_key: string, value: unknown): unknown {
  return typeof value === 'bigint' ? value.toString() : value;
}

/** Tells the person something that is not part of the result. */
export function note(terminal: Terminal, text: string): void {
  terminal.notes.write(`${printable(text)}\n`);
}

/** A table with its columns aligned. */
export function tableOf(header: readonly string[], rows: readonly (readonly string[])[]): string {
  const all = [header, ...rows];
  const widths = header.map((_, column) => Math.max(...all.map((row) => row[column]?.length ?? 0)));
  return all
    .map((row) =>
      row
        .map((cell, column) => (column === row.length - 1 ? cell : cell.padEnd(widths[column] ?? 0)))
        .join(' '.repeat(COLUMN_GAP))
        .trimEnd(),
    )
    .join('\n');
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
