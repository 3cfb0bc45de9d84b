/** Traces of instances in files: one step a line, as JSON. */

import { createReadStream } from 'node:fs';
import { createInterface } from 'node:readline';
import { Checker, type Mismatch } from './checker.js';
import type { Step } from './steps.js';

/** The result of comparing a trace with the tables. */
export interface TraceResult {
  readonly steps: number;
  /** The first step whose decision is not that of the tables. */
  readonly mismatch: Mismatch | undefined;
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
