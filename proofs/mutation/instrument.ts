/** Mutants of source files: Stryker's mutators, each mutant behind a switch in the instrumented file. */

import { Instrumenter } from '@stryker-mutator/instrumenter';

/** A source file, by its path from the root. */
export interface Source {
  readonly file: string;
  readonly text: string;
}

/** One change of a source file. */
export interface Mutant {
  /** The value of the switch that turns it on. */
  readonly id: string;
  readonly file: string;
  /** Its line, from 1. */
  readonly line: number;
  /** The kind of change, such as `ConditionalExpression`. */
  readonly mutator: string;
  /** The code before and after the change, on one line. */
  readonly from: string;
  readonly to: string;
}

/** Texts are left out: they are messages, SQL and names, which tests compare where they matter. */
const EXCLUDED_MUTATORS = ['StringLiteral'];

/** Instruments files. The mutants of one call have different ids. */
export async function instrument(
  sources: readonly Source[],
): Promise<{ instrumented: readonly Source[]; mutants: readonly Mutant[] }> {
  const texts = new Map(sources.map(({ file, text }) => [file, text]));
  const files = sources.map(({ file, text }) => ({ name: file, content: text, mutate: true }));
  const options = { plugins: null, excludedMutations: EXCLUDED_MUTATORS, ignorers: [LOG_CALLS] };
  const result = await new Instrumenter(LOGGER).instrument(files, options);
  const mutants = result.mutants.filter(({ status }) => status !== 'Ignored');
  return {
    instrumented: result.files.map(({ name, content }) => ({ file: name, text: content })),
    mutants: mutants.map(({ id, fileName, location, mutatorName, replacement = '' }) => ({
      id,
      file: fileName,
      line: location.start.line + 1,
      mutator: mutatorName,
      from: oneLine(excerptOf(texts.get(fileName) ?? '', location)),
      to: oneLine(replacement),
    })),
  };
}

interface Position {
  readonly line: number;
  readonly column: number;
}

function excerptOf(text: string, { start, end }: { start: Position; end: Position }): string {
  const lines = text.split('\n').slice(start.line, end.line + 1);
  const last = lines.length - 1;
  return lines
    .map((line, index) => line.slice(index === 0 ? start.column : 0, index === last ? end.column : undefined))
    .join('\n');
}

function oneLine(code: string): string {
  return code.replace(/\s+/g, ' ').trim();
}

/** Arguments of log calls are for people. */
const LOG_CALLS = {
  shouldIgnore: (path: { isCallExpression(): boolean; node: unknown }): string | undefined => {
    if (!path.isCallExpression()) return undefined;
    const { callee } = path.node as { callee: { type: string; object?: NamedNode; property?: NamedNode } };
    const isLog = nameOf(callee.object) === 'log' && LOG_LEVELS.includes(nameOf(callee.property) ?? '');
    return isLog ? 'a log line' : undefined;
  },
};

const LOG_LEVELS = ['debug', 'info', 'warn', 'error'];

interface NamedNode {
  readonly name?: string;
  readonly property?: NamedNode;
  readonly id?: NamedNode;
}

function nameOf(node: NamedNode | undefined): string | undefined {
  return node?.name ?? node?.property?.name ?? node?.id?.name;
}

const SILENT = (): void => {};
const OFF = (): boolean => false;
/** The instrumenter logs what it skips. */
const LOGGER = {
  isTraceEnabled: OFF,
  isDebugEnabled: OFF,
  isInfoEnabled: OFF,
  isWarnEnabled: OFF,
  isErrorEnabled: OFF,
  isFatalEnabled: OFF,
  trace: SILENT,
  debug: SILENT,
  info: SILENT,
  warn: SILENT,
  error: SILENT,
  fatal: SILENT,
};
