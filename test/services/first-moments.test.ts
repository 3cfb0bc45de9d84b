/** Signals that reach a service before its own code is loaded. */

import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { expect } from 'chai';
import { programArguments } from '../../scripts/system/project.js';

const LOADING = 'loading the configuration';
/** Announces the import that every service begins with, and then never finishes it. */
const STALL = `export async function resolve(specifier, context, next) {
  if (specifier !== './config.js') return next(specifier, context);
  (await import('node:fs')).writeSync(2, '${LOADING}\\n');
  return new Promise((resolve) => setTimeout(resolve, 3_600_000));
}`;

/** Arguments of Node that make the start of a service stand still at its first import. */
const STALLING = [
  '--import',
  dataUrl(`import { register } from 'node:module'; register(${JSON.stringify(dataUrl(STALL))});`),
];

const UNSHARE = ['unshare', '--user', '--map-root-user', '--pid', '--fork', '--kill-child'];
const CAN_UNSHARE = spawnSync(UNSHARE[0] ?? '', [...UNSHARE.slice(1), 'true']).status === 0;
const NAMESPACE = CAN_UNSHARE ? UNSHARE : [];

describe('a service that is still loading', function () {
  this.timeout(180_000);
  const running = new Set<ChildProcess>();
  afterEach(async () => {
    for (const child of running) child.kill('SIGKILL');
    running.clear();
  });

  async function startLoading(service: string, before: readonly string[] = []): Promise<ChildProcess> {
    const [command = '', ...words] = [
      ...before,
      process.execPath,
      ...STALLING,
      ...programArguments(`services/${service}/main`),
    ];
    const child = spawn(command, words, { stdio: ['ignore', 'ignore', 'pipe'], env: {} });
    running.add(child);
    for await (const chunk of child.stderr) if (String(chunk).includes(LOADING)) break;
    return child;
  }

  for (const service of ['auth', 'inventory', 'payment']) {
    it(`ends with code 0 on SIGTERM, and ignores SIGHUP: ${service}`, async () => {
      const child = await startLoading(service);
      child.kill('SIGHUP');
      child.kill('SIGTERM');
      expect(await once(child, 'exit')).to.deep.equal([0, null]);
    });
  }

  it('ends with code 0 on SIGTERM as the first process of a container', async () => {
    // Only in a namespace of its own is it process number 1, to which the kernel delivers only handled signals.
    const launcher = await startLoading('inventory', NAMESPACE);
    // Where namespaces are forbidden, it is an ordinary process, and the signal would end it without a handler.
    process.kill(CAN_UNSHARE ? childOf(launcher) : (launcher.pid ?? 0), 'SIGTERM');
    expect(await once(launcher, 'exit')).to.deep.equal([0, null]);
  });
});

/** The only child of a process. */
function childOf({ pid }: ChildProcess): number {
  return Number(readFileSync(`/proc/${pid}/task/${pid}/children`, 'utf8').trim());
}

function dataUrl(code: string): string {
  return `data:text/javascript,${encodeURIComponent(code)}`;
}
