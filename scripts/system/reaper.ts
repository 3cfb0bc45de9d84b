/** The warden's program: waits until its launcher is gone, then ends what the launcher left running. */

import { rm } from 'node:fs/promises';
import { createInterface } from 'node:readline';
import { endProcess } from './processes.js';
import type { ReaperMessage, WatchedProcess } from './reaper-client.js';

const processes = new Map<number, WatchedProcess>();
const folders = new Set<string>();

for await (const line of createInterface({ input: process.stdin })) {
  take(JSON.parse(line) as ReaperMessage);
}
// The last started depends on those before it, so it goes first.
for (const entrusted of [...processes.values()].reverse()) {
  await endProcess(entrusted, entrusted.ending).catch(() => undefined);
}
for (const folder of folders) await rm(folder, { recursive: true, force: true }).catch(() => undefined);

function take(message: ReaperMessage): void {
  switch (message.kind) {
    case 'entrust':
      processes.set(message.process.pid, message.process);
      return;
    case 'release':
      if (processes.get(message.process.pid)?.startTime === message.process.startTime) {
        processes.delete(message.process.pid);
      }
      return;
    case 'entrustFolder':
      folders.add(message.path);
      return;
    case 'releaseFolder':
      folders.delete(message.path);
      return;
  }
}
