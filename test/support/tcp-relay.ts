/** A TCP relay that can be cut, so that tests see a server vanish that is in truth shared by all of them. */

import { type AddressInfo, connect, createServer, type Socket } from 'node:net';

/** A relay in front of one server. */
export interface TcpRelay {
  readonly port: number;
  /** Breaks every connection and refuses new ones. */
  cut(): Promise<void>;
  /** Accepts connections again, on the same port. */
  mend(): Promise<void>;
  /** Leads new connections to another port. */
  aim(targetPort: number): void;
  /** How often something was sent to the server after an answer had come from it. */
  turns(): number;
}

/**
 * Starts relaying from a free port to a port of this machine.
 *
 * @param answersAfterMs - how long answers take on their way, so that what is sent at once is told from what waits
 */
export async function startRelay(targetPort: number, answersAfterMs = 0): Promise<TcpRelay> {
  const sockets = new Set<Socket>();
  let target = targetPort;
  let turns = 0;
  let isAnswered = true;
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
    if (answersAfterMs === 0) far.pipe(near);
    far.on('data', (chunk) => {
      if (answersAfterMs === 0) return;
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
  };
}
