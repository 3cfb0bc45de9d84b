/** Several nats-servers of this machine that form one cluster. */

import { randomBytes } from 'node:crypto';
import { join } from 'node:path';
import { brokerConnection } from '@portcullis/guard/internal';
import { connect } from 'nats';
import { type Nats, startNats } from '../../scripts/system/nats.js';
import { findFreePort } from '../../scripts/system/ports.js';
import { waitUntil } from './waiting.js';

const USER = 'proof';
const PASSWORD_BYTES = 24;
const FORMED_MS_MAX = 30_000;
const POLL_MS = 50;

export interface NatsCluster {
  /** An address of each server, with user and password. */
  readonly urls: readonly string[];
  readonly pids: readonly number[];
  stop(): Promise<void>;
}

/**
 * Starts the servers on free ports, and returns when a message to each of them reaches subscribers at all others.
 *
 * @param options.folder - the folder of their configurations and logs
 */
export async function startNatsCluster(options: {
  readonly folder: string;
  readonly size: number;
}): Promise<NatsCluster> {
  const password = randomBytes(PASSWORD_BYTES).toString('hex');
  const routes = await freePorts(options.size);
  const servers: Nats[] = [];
  const stop = async (): Promise<void> => {
    await Promise.all(servers.map((server) => server.stop()));
  };
  try {
    for (const [index, port] of routes.entries()) {
      servers.push(
        await startNats({
          dataDir: join(options.folder, `nats-${index + 1}`),
          port: 0,
          authentication: { authorization: { users: [{ user: USER, password }] } },
          cluster: { name: 'proof', port, routes },
        }),
      );
    }
    const urls = servers.map(({ port }) => `nats://${USER}:${password}@127.0.0.1:${port}`);
    await untilFormed(urls);
    return { urls, pids: servers.map(({ pid }) => pid), stop };
  } catch (error) {
    await stop();
    throw error;
  }
}

async function freePorts(count: number): Promise<number[]> {
  const ports = new Set<number>();
  while (ports.size < count) ports.add(await findFreePort());
  return [...ports];
}

async function untilFormed(urls: readonly string[]): Promise<void> {
  const connections = await Promise.all(urls.map((url) => connect(brokerConnection(url, 'proof'))));
  try {
    const received = new Set<string>();
    for (const [to, connection] of connections.entries()) {
      connection.subscribe('proof.route', {
        callback: (_, message) => void received.add(`${message.string()} ${to}`),
      });
      await connection.flush();
    }
    await waitUntil(
      () => {
        for (const [from, connection] of connections.entries()) {
          connection.publish('proof.route', String(from));
        }
        return received.size === urls.length ** 2;
      },
      {
        timeoutMs: FORMED_MS_MAX,
        pollMs: POLL_MS,
        failure: () => `the nats-servers form no cluster: ${received.size} of ${urls.length ** 2} routes`,
      },
    );
  } finally {
    await Promise.all(connections.map((connection) => connection.close()));
  }
}
