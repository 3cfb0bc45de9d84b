/** Real nats-servers: a private one for each test that needs it, which the test may stop, kill and freeze. */

import type { NatsConnection } from 'nats';
import { connect } from 'nats';
import type { Nats, NatsUser } from '../../scripts/system/nats.js';
import { startNats } from '../../scripts/system/nats.js';
import { makeTemporaryFolder } from '../../scripts/system/temporary-folder.js';

/** A nats-server of one test's own. */
export interface PrivateNats {
  /** The address with the credentials of one user; `test` has all permissions. */
  url(user: NatsUser): string;
  readonly port: number;
  readonly pid: number;
  /** Connects as one user, by default `test`; the connection is closed with the server. */
  connect(user?: NatsUser): Promise<NatsConnection>;
  /** Sends a signal, such as SIGSTOP, without waiting. */
  kill(signal: NodeJS.Signals): void;
  /** Starts it again, stopping it first when it runs: same port, same passwords. */
  restart(): Promise<void>;
  /** Stops it and removes its files; otherwise that happens at the end of the run. */
  stop(): Promise<void>;
}

const open = new Set<PrivateNats>();

/** Starts a nats-server for one test. */
export async function privateNats(): Promise<PrivateNats> {
  const folder = await makeTemporaryFolder();
  const start = (port: number): Promise<Nats> =>
    startNats({ dataDir: folder.path, port, withTestUser: true });
  let server = await start(0);
  const connections = new Set<NatsConnection>();
  const { port } = server;
  const nats: PrivateNats = {
    port,
    get pid() {
      return server.pid;
    },
    url: (user) => server.url(user),
    async connect(user = 'test') {
      const { username, password, host } = new URL(server.url(user));
      const connection = await connect({ servers: host, user: username, pass: password });
      connections.add(connection);
      return connection;
    },
    kill: (signal) => server.kill(signal),
    async restart() {
      await server.stop();
      server = await start(port);
    },
    async stop() {
      if (!open.delete(nats)) return;
      await Promise.all([...connections].map((connection) => connection.close()));
      await server.stop();
      await folder.remove();
    },
  };
  open.add(nats);
  return nats;
}

/** Stops every server that a test has left running; called once, after the last test. */
export async function stopNats(): Promise<void> {
  for (const nats of [...open]) await nats.stop();
}
