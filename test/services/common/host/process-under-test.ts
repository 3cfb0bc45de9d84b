/** A small service as a process of its own: `process-under-test.ts LISTEN OPS_LISTEN [FAULT]`. */

import { setTimeout as sleep } from 'node:timers/promises';
import { hostPort, parseEnvironment } from '../../../../services/common/config/env.js';
import { startHost } from '../../../../services/common/host/host.js';
import { createLog } from '../../../../services/common/host/log.js';
import { runUntilSignal } from '../../../../services/common/host/process.js';
import { runMain } from '../../../../services/common/host/run-main.js';

const [listen = '', opsListen = '', fault = ''] = process.argv.slice(2);

await runMain(async () => {
  const shape = { PORTCULLIS_LISTEN: hostPort(), PORTCULLIS_OPS_LISTEN: hostPort() };
  const config = parseEnvironment(shape, { PORTCULLIS_LISTEN: listen, PORTCULLIS_OPS_LISTEN: opsListen });
  const log = createLog({ service: 'test', level: 'info' });
  const host = await startHost({
    service: 'test',
    listen: config.PORTCULLIS_LISTEN,
    opsListen: config.PORTCULLIS_OPS_LISTEN,
    log,
    reflection: false,
    drainMs: 1_000,
    connectionIdleMs: 300_000,
    interceptors: [],
    addServices: () => {},
    serviceNames: [],
    readiness: {},
  });
  if (fault === 'after-start') throw new Error('something else');
  if (fault === 'uncaught') setTimeout(() => Promise.reject(new Error('a rejection without a handler')), 50);
  runUntilSignal({
    log,
    drainMs: 1_000,
    stop: async () => {
      await host.stop();
      if (fault === 'slow-stop') await sleep(60_000);
    },
  });
});
