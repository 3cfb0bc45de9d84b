/** The reaper: waits until its launcher is gone, then ends the processes and removes the folders that it left. */

import { rm } from 'node:fs/promises';
import { createInterface } from 'node:readline';
import { endProcess } from './process-identity.js';
import type { ReaperMessage, WatchedProcess } from './reaper-client.js';

const processes = new Map<number, WatchedProcess>();
const folders = new Set<string>();

for await (const line of createInterface({ input: process.stdin })) {
  apply(JSON.parse(line) as ReaperMessage);
}
// Processes that were started later depend on earlier ones, so they end first.
for (const watched of [...processes.values()].reverse()) {
  await endProcess(watched, watched.ending).catch(() => undefined);
}
for (const folder of folders) await rm(folder, { recursive: true, force: true }).catch(() => undefined);

function apply(message: ReaperMessage): void {
  switch (message.kind) {
    case 'watchProcess':
      processes.set(message.process.pid, message.process);
      return;
    case 'unwatchProcess':
      if (processes.get(message.process.pid)?.startTime === message.process.startTime) {
        processes.delete(message.process.pid);
      }
      return;
    case 'watchFolder':
      folders.add(message.path);
      return;
    case 'unwatchFolder':
      folders.delete(message.path);
      return;
  }
}
