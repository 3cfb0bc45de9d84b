/** The ways to the server that the section `gate` compares: none between, gates, and proxies that decide nothing. */

import { mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { findFreePort } from '../../scripts/system/ports.js';
import { haproxy, LIBRARIES, nginx } from '../interop/peers.js';
import { type Program, startProgram, waitForPort } from '../interop/programs.js';
import type { Peer } from '../shared/programs.js';
import type { Deployment } from './gate-deployment.js';
import type { PipeCommands } from './gate-pipe-process.js';
import { haproxySettings, nginxSettings } from './gate-proxies.js';
import type { BenchContext } from './section.js';
import { pinned, startWorker } from './worker.js';

/**
 * The arms; `gate-again` is a second gate, which shows the noise of the method, and `pipe` passes bytes in Node without
 * looking at them.
 */
export type GateArmName = 'direct' | 'pipe' | 'gate' | 'gate-again' | 'nginx' | 'haproxy';

/** A way to the server. */
export interface GateArm {
  readonly name: GateArmName;
  readonly port: number;
  /** The process on the way; undefined when there is none. */
  readonly pid: number | undefined;
  readonly version: string;
}

/** A program that cannot be had here. */
export interface MissingArm {
  readonly name: GateArmName;
  readonly why: string;
}

/** The arms that are open. */
export interface GateArms {
  readonly arms: readonly GateArm[];
  readonly missing: readonly MissingArm[];
  stop(): Promise<void>;
}

/** Opens all arms whose programs can be had. Each program runs on the core of servers. */
export async function openArms(context: BenchContext, deployment: Deployment): Promise<GateArms> {
  const { upstream } = deployment;
  const arms: GateArm[] = [{ name: 'direct', port: upstream.port, pid: undefined, version: '' }];
  const missing: MissingArm[] = [];
  const undo: (() => Promise<void>)[] = [];
  const stop = async (): Promise<void> => {
    for (const step of undo.splice(0).reverse()) await step();
  };
  try {
    const pipe = startWorker<PipeCommands>({ program: 'gate-pipe-process', core: context.cores.server });
    undo.push(() => pipe.stop());
    arms.push({ name: 'pipe', port: await pipe.call('pipe', upstream.port), pid: pipe.pid, version: '' });
    for (const name of ['gate', 'gate-again'] as const) {
      context.progress(`starting ${name}`);
      const gate = await deployment.startGate(context.cores.server, {
        upstream: `127.0.0.1:${upstream.port}`,
      });
      undo.push(() => gate.stop());
      arms.push({ name, port: gate.port, pid: gate.pid, version: '' });
    }
    for (const [name, get, start] of [
      ['nginx', nginx, startNginx],
      ['haproxy', haproxy, startHaproxy],
    ] as const) {
      context.progress(`fetching ${name}`);
      const peer: Peer<string> = await get();
      if (!peer.had) {
        missing.push({ name, why: peer.why });
        continue;
      }
      const port = await findFreePort();
      const program = await start(context, deployment, peer.value, port);
      undo.push(() => program.stop());
      await waitForPort(port, program);
      arms.push({ name, port, pid: program.pid, version: peer.version });
    }
    return { arms, missing, stop };
  } catch (error) {
    await stop();
    throw error;
  }
}

async function startNginx(
  { cores }: BenchContext,
  { folder: parent, upstream }: Deployment,
  program: string,
  port: number,
): Promise<Program> {
  const folder = join(parent, 'nginx');
  await mkdir(folder);
  const file = join(folder, 'nginx.conf');
  await writeFile(file, nginxSettings({ folder, port, upstreamPort: upstream.port }));
  return startPinned([program, '-p', folder, '-c', file], cores.server);
}

async function startHaproxy(
  { cores }: BenchContext,
  { folder, upstream }: Deployment,
  program: string,
  port: number,
): Promise<Program> {
  const file = join(folder, 'haproxy.cfg');
  await writeFile(file, haproxySettings({ port, upstreamPort: upstream.port }));
  return startPinned([program, '-db', '-f', file], cores.server);
}

function startPinned(words: readonly string[], core: number | undefined): Program {
  const [command = '', ...rest] = pinned(words, core);
  return startProgram(command, rest, { environment: LIBRARIES });
}
