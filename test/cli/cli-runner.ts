/** Runs command lines in this process, against streams of their own. */

import { PassThrough } from 'node:stream';
import { createContextStore } from '../../cli/src/contexts.js';
import { runProgram } from '../../cli/src/program.js';

/** What a command line has done. */
export interface Outcome {
  readonly code: number;
  readonly out: string;
  readonly err: string;
}

/** How a command line is run. */
export interface RunOptions {
  readonly input?: string;
  /** Width of the terminal; no terminal by default. */
  readonly columns?: number;
  readonly hasColor?: boolean;
  /** Stands for Ctrl-C. */
  readonly interrupt?: AbortSignal;
  /** Receives each part of the output as it is written. */
  readonly onOutput?: (text: string) => void;
}

/** Runs command lines with the contexts of one file. */
export function createCliRunner(contextsFile: string) {
  return async (words: readonly string[], options: RunOptions = {}): Promise<Outcome> => {
    const { input = '', columns, hasColor, interrupt, onOutput } = options;
    const [output, notes, stdin] = [new PassThrough(), new PassThrough(), new PassThrough()];
    stdin.end(input);
    const texts = [output, notes].map(async (stream) => {
      const parts: string[] = [];
      for await (const part of stream) {
        parts.push(String(part));
        onOutput?.(String(part));
      }
      return parts.join('');
    });
    const terminal = {
      ...{ input: stdin, output, notes, columns, hasColor },
      ...(interrupt !== undefined && { interrupted: () => interrupt }),
    };
    const store = createContextStore({ PORTCULLIS_CONFIG: contextsFile });
    const code = await runProgram({ terminal, store, words });
    output.end();
    notes.end();
    const [out = '', err = ''] = await Promise.all(texts);
    return { code, out, err };
  };
}

/** What differs from run to run, replaced by something of the same length. */
export function steady(text: string): string {
  return text
    .replaceAll(/\d{4}-\d{2}-\d{2}/g, '2026-11-30')
    .replaceAll(/\d{2}:\d{2}:\d{2}/g, '14:03:00')
    .replaceAll(/\/[0-9a-f]{8}\b/g, '/3f9a1c0b')
    .replaceAll(/\/[0-9a-f]{6}\b/g, '/3f9a1c');
}
