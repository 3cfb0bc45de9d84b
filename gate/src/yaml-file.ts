/** Files in YAML or JSON that people write. */

import { readFileSync } from 'node:fs';
import { parseDocument, type YAMLError } from 'yaml';

/** Why a file cannot be read: its name is not repeated, and nothing of its content, which may have secrets. */
export class UnreadableError extends Error {
  constructor(reason: string, options?: ErrorOptions) {
    super(reason, options);
    this.name = 'UnreadableError';
  }
}

/**
 * Reads a file that is no larger than it may be.
 *
 * @throws UnreadableError
 */
export function readBytes(file: string, bytesMax: number): Buffer {
  let bytes: Buffer;
  try {
    bytes = readFileSync(file);
  } catch (error) {
    throw new UnreadableError(`cannot be read (${codeOf(error)})`, { cause: error });
  }
  if (bytes.length > bytesMax) throw new UnreadableError(`has more than ${bytesMax} bytes`);
  return bytes;
}

/**
 * Reads a file in YAML, of which JSON is a part.
 *
 * @throws UnreadableError with the line of the first fault
 */
export function readYaml(file: string, bytesMax: number): unknown {
  const document = parseDocument(readBytes(file, bytesMax).toString('utf8'), { uniqueKeys: true });
  const [fault] = document.errors;
  if (fault !== undefined) throw new UnreadableError(`has a fault ${yamlFault(fault)}`);
  try {
    // A small file with aliases can stand for a huge one.
    return document.toJS({ maxAliasCount: ALIASES_MAX });
  } catch (error) {
    throw new UnreadableError('has too many aliases (*)', { cause: error });
  }
}

const ALIASES_MAX = 100;

/** A fault of a file in YAML, by its line. The parser's own message repeats what stands there. */
export function yamlFault({ code, linePos }: YAMLError): string {
  const why = FAULTS[code] ?? 'not valid YAML';
  return linePos === undefined ? why : `in line ${linePos[0].line}: ${why}`;
}

/** The faults that people make, by their names in the parser. */
const FAULTS: Readonly<Record<string, string>> = {
  BAD_INDENT: 'its indentation does not fit, or a bracket before it is open',
  BLOCK_AS_IMPLICIT_KEY: 'a table must begin on a line of its own',
  DUPLICATE_KEY: 'a name stands there twice',
  MISSING_CHAR: 'a bracket, a quotation mark or a comma is missing',
  TAB_AS_INDENT: 'tabs cannot indent',
  UNEXPECTED_TOKEN: 'not valid YAML',
};

/** The name of a fault of the operating system. */
export function codeOf(error: unknown): string {
  return error instanceof Error && 'code' in error ? String(error.code) : 'unknown error';
}
