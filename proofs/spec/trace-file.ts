/** Traces of instances in files: one step a line, as JSON. */

import { createReadStream } from 'node:fs';
import { readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { Checker, type Mismatch } from './checker.js';
import type { Step } from './steps.js';

/** The result of comparing a trace with the tables. */
export interface TraceResult {
  readonly steps: number;
  /** The first step whose decision is not that of the tables. */
  readonly mismatch: Mismatch | undefined;
}

/** The results of all traces in a folder. */
export interface FolderResult {
  readonly traces: number;
  readonly steps: number;
  /** How traces differ from the tables, one a trace. */
  readonly mismatches: readonly string[];
}

/** Compares all traces in a folder with the tables. */
export async function checkTraceFolder(folder: string): Promise<FolderResult> {
  const files = (await readdir(folder)).filter((file) => file.endsWith('.jsonl')).sort();
  const mismatches: string[] = [];
  let steps = 0;
  for (const file of files) {
    const result = await checkTraceFile(join(folder, file));
    steps += result.steps;
    const { mismatch } = result;
    if (mismatch !== undefined) mismatches.push(`${file}, line ${mismatch.step}: ${mismatch.what}`);
  }
  return { traces: files.length, steps, mismatches };
}

/** Compares the trace of one instance with the tables. A process that was killed may have left its last line incomplete. */
export async function checkTraceFile(file: string): Promise<TraceResult> {
  const checker = new Checker();
  let held: string | undefined;
  for await (const line of createInterface({ input: createReadStream(file) })) {
    const mismatch = held === undefined ? undefined : checker.check(JSON.parse(held) as Step);
    if (mismatch !== undefined) return { steps: checker.steps, mismatch };
    held = line;
  }
  const last = held === undefined ? undefined : completeStep(held);
  const mismatch = last && checker.check(last);
  return { steps: checker.steps, mismatch };
}

function completeStep(line: string): Step | undefined {
  try {
    return JSON.parse(line) as Step;
  } catch {
    return undefined;
  }
}
