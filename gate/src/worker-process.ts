/** One worker of a gate with several processes: it does what the first process says. */

import { createPrivateKey } from 'node:crypto';
import { AggregatorRegistry } from 'prom-client';
import { type Gate, startGate } from './gate.js';
import { createGateLog } from './log.js';
import { createGateMetrics } from './metrics.js';
import { readSettings } from './settings.js';
import type { WorkerCommand, WorkerReport } from './workers.js';

let gate: Gate | undefined;
/** Aborted when calls are waited for no longer. */
const hurry = new AbortController();
/** It was told to reload while it started: what it has read may be old. */
let isReloadDue = false;

// The first process alone decides when the workers stop: a terminal sends its signals to all of them.
process.on('SIGINT', () => {});
process.on('SIGHUP', () => {});
process.on('SIGTERM', () => {});
process.on('disconnect', () => process.exit(1));
process.on('message', (command: WorkerCommand | { readonly type: string }) => {
  if (!('kind' in command)) return;
  obey(command).catch((error: unknown) => {
    report({ kind: 'failed', message: error instanceof Error ? error.message : String(error) });
    process.exit(1);
  });
});
report({ kind: 'listening' });

async function obey(command: WorkerCommand): Promise<void> {
  if (command.kind === 'reload') {
    if (gate === undefined) isReloadDue = true;
    else await gate.reload();
    return;
  }
  if (command.kind === 'hurry') {
    hurry.abort();
    return;
  }
  if (command.kind === 'stop') {
    await gate?.close(hurry.signal);
    process.exit(0);
  }
  const { flags, configFile, identityKey, opensWhenReady } = command;
  const settings = readSettings(flags, configFile);
  const metrics = createGateMetrics();
  AggregatorRegistry.setRegistries([metrics.registry]);
  // Answers when the first process asks for the metrics.
  new AggregatorRegistry();
  const log = createGateLog(settings.logLevel);
  log.info({ event: 'starting' }, 'a worker starts');
  const started = await startGate(
    {
      ...settings,
      opsListen: undefined,
      healthListen: undefined,
      identity: {
        ...settings.identity,
        key: identityKey === undefined ? undefined : createPrivateKey(identityKey),
      },
    },
    { log, metrics, opensWhenReady },
  );
  gate = started;
  if (isReloadDue) await started.reload();
  const tell = (): void => report({ kind: 'state', missing: started.missing() });
  started.onChange(tell);
  tell();
}

function report(message: WorkerReport): void {
  process.send?.(message);
}
