/** An instance whose log cannot be written: the disk is full, or the reader of its pipe stands still. */

import { execFile } from 'node:child_process';
import { constants } from 'node:fs';
import { type FileHandle, open, rename, rm, symlink } from 'node:fs/promises';
import { promisify } from 'node:util';
import type { ServiceProcess } from '../../scripts/system/parts.js';

/** A device on which every write fails with ENOSPC (full(4)). */
const FULL_DEVICE = '/dev/full';
const START_MAX_MS = 30_000;
/** An instance without calls stops within this time; the launcher kills it after 20 s. */
const STOP_MAX_MS = 15_000;

/** Puts a log in the place of the instance's own, and restarts the instance. */
export async function breakLog(service: ServiceProcess, how: 'full' | 'stalled'): Promise<BrokenLog> {
  const { logFile } = service;
  const kept = `${logFile}.kept`;
  await service.stop();
  await rename(logFile, kept);
  let reader: FileHandle | undefined;
  if (how === 'full') {
    await symlink(FULL_DEVICE, logFile);
  } else {
    await promisify(execFile)('mkfifo', [logFile]);
    // Without a reader, opening the pipe for writing would wait. This one never reads.
    reader = await open(logFile, constants.O_RDWR | constants.O_NONBLOCK);
  }
  await service.launch();
  const problems = await service.ready({ timeoutMs: START_MAX_MS }).then(
    (): string[] => [],
    () => [`${service.name} did not start within ${START_MAX_MS / 1_000} s`],
  );
  return {
    repair: async () => {
      const startedMs = performance.now();
      await service.stop();
      const stopMs = performance.now() - startedMs;
      await reader?.close();
      await rm(logFile);
      await rename(kept, logFile);
      await service.restart();
      if (stopMs > STOP_MAX_MS) problems.push(`${service.name} took ${Math.round(stopMs)} ms to stop`);
      return problems;
    },
  };
}

/** A log that cannot be written. */
export interface BrokenLog {
  /** Stops the instance, and starts it with its own log. @returns what went wrong meanwhile */
  repair(): Promise<readonly string[]>;
}
