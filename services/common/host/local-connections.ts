/**
 * Connections of this process to its own gRPC server, each on behalf of a peer of another port. Calls on them pass the
 * guard, the limits and the log like those of the peer itself, and handlers see the peer's address.
 */

import { once } from 'node:events';
import { type AddressInfo, connect, createServer, type Server as NetServer, type Socket } from 'node:net';
import { type ConnectionInjector, type Server, ServerCredentials } from '@grpc/grpc-js';

/** Loopback only: no other machine can reach the port. */
const HOST = '127.0.0.1';

/** Opens connections to the server of this process. */
export interface LocalConnections {
  /**
   * @param peerAddress - the address that the server takes for the peer's
   * @returns the client's end
   */
  connect(peerAddress: string): Promise<Socket>;
  close(): Promise<void>;
}

/** Opens nothing before the first connection. */
export function createLocalConnections(server: Server): LocalConnections {
  let listener: Promise<LocalListener> | undefined;
  return {
    connect: async (peerAddress) => {
      listener ??= openListener(server);
      return await connectTo(await listener, peerAddress);
    },
    close: async () => {
      const opened = await listener;
      if (opened === undefined) return;
      opened.port.close();
      for (const socket of opened.sockets) socket.destroy();
    },
  };
}

interface LocalListener {
  readonly port: NetServer;
  readonly injector: ConnectionInjector;
  /** Accepted sockets by the port of their peer, until the end of this process claims them. */
  readonly accepted: Map<number, Socket>;
  /** Called with the port of each accepted socket. */
  readonly waiting: Map<number, () => void>;
  readonly sockets: Set<Socket>;
}

/** How long an accepted connection may stay unclaimed, in milliseconds. Only those of other programs do. */
const CLAIM_TIMEOUT_MS = 1_000;

async function openListener(server: Server): Promise<LocalListener> {
  const opened: LocalListener = {
    port: createServer(),
    injector: server.createConnectionInjector(ServerCredentials.createInsecure()),
    accepted: new Map(),
    waiting: new Map(),
    sockets: new Set(),
  };
  opened.port.on('connection', (socket) => accept(opened, socket));
  opened.port.listen({ host: HOST, port: 0, exclusive: true });
  await once(opened.port, 'listening');
  return opened;
}

function accept({ accepted, waiting, sockets }: LocalListener, socket: Socket): void {
  const { remotePort = 0 } = socket;
  socket.on('error', () => {});
  sockets.add(socket);
  accepted.set(remotePort, socket);
  const timer = setTimeout(() => {
    if (accepted.delete(remotePort)) socket.destroy();
  }, CLAIM_TIMEOUT_MS).unref();
  socket.once('close', () => {
    clearTimeout(timer);
    sockets.delete(socket);
    if (accepted.get(remotePort) === socket) accepted.delete(remotePort);
  });
  waiting.get(remotePort)?.();
}

/**
 * Connects, and passes the accepted end to the server. The two ends are found by the port of the client's end, which no
 * other program can have at the same time: a connection of another program reaches nothing.
 */
async function connectTo(opened: LocalListener, peerAddress: string): Promise<Socket> {
  const { port } = opened.port.address() as AddressInfo;
  const client = connect({ host: HOST, port });
  opened.sockets.add(client);
  client.once('close', () => opened.sockets.delete(client));
  await once(client, 'connect');
  client.on('error', () => {});
  const { localPort = 0 } = client;
  const served = await claim(opened, localPort);
  Object.defineProperties(served, {
    remoteAddress: { value: peerAddress },
    // No peer of the network can read what stays inside the process.
    encrypted: { value: true },
  });
  opened.injector.injectConnection(served);
  return client;
}

async function claim({ accepted, waiting }: LocalListener, remotePort: number): Promise<Socket> {
  if (!accepted.has(remotePort)) {
    await new Promise<void>((resolve, reject) => {
      const timer = setTimeout(
        () => reject(new Error('a local connection was not accepted')),
        CLAIM_TIMEOUT_MS,
      );
      waiting.set(remotePort, () => {
        clearTimeout(timer);
        resolve();
      });
    }).finally(() => waiting.delete(remotePort));
  }
  const socket = accepted.get(remotePort);
  if (socket === undefined) throw new Error('a local connection was closed');
  accepted.delete(remotePort);
  return socket;
}
