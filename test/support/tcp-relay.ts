/** A TCP relay that can be cut: for one test, a shared server becomes unreachable. */

import { type AddressInfo, connect, createServer, type Socket } from 'node:net';

/** A relay in front of one server. */
export interface TcpRelay {
  readonly port: number;
  /** Breaks every connection and rejects new ones. */
  cut(): Promise<void>;
  /** Accepts connections again, on the same port. */
  mend(): Promise<void>;
  /** Directs new connections to another port. */
  aim(targetPort: number): void;
  /** The number of round trips: how often data was sent to the server after a response from it. */
  turns(): number;
  /** The number of connections so far. */
  connections(): number;
}

/**
 * Starts relaying from a free port to a port of this machine.
 *
 * @param answersAfterMs - delay of each response, so that round trips can be counted
 * @param resetAt - the packet of the server at which its n-th connection (from 1) is reset in place of passing it on
 */
export async function startRelay(
  targetPort: number,
  answersAfterMs = 0,
  resetAt: (connection: number) => number | undefined = () => undefined,
): Promise<TcpRelay> {
  const sockets = new Set<Socket>();
  let target = targetPort;
  let turns = 0;
  let isAnswered = true;
  let connections = 0;
  const server = createServer((near) => {
    const far = connect(target, '127.0.0.1');
    for (const socket of [near, far]) {
      sockets.add(socket);
      socket.on('error', () => {});
      socket.on('close', () => {
        sockets.delete(socket);
        near.destroy();
        far.destroy();
      });
    }
    near.on('data', () => {
      if (isAnswered) turns += 1;
      isAnswered = false;
    });
    near.pipe(far);
    connections += 1;
    const resetPacket = resetAt(connections);
    let packets = 0;
    far.on('data', (chunk) => {
      packets += 1;
      if (packets === resetPacket) return void near.resetAndDestroy();
      if (answersAfterMs === 0) return void near.write(chunk);
      setTimeout(() => {
        isAnswered = true;
        near.write(chunk);
      }, answersAfterMs);
    });
  });
  const listen = (port: number) =>
    new Promise<void>((resolve) => {
      server.listen(port, '127.0.0.1', resolve);
    });
  await listen(0);
  const { port } = server.address() as AddressInfo;
  return {
    port,
    cut: () =>
      new Promise((resolve) => {
        server.close(() => resolve());
        for (const socket of sockets) socket.destroy();
      }),
    mend: () => listen(port),
    aim: (newPort) => {
      target = newPort;
    },
    turns: () => turns,
    connections: () => connections,
  };
}
