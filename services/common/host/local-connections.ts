/**
 * Connections of this process to its own gRPC server, each on behalf of a peer of another port. Calls on them pass the
 * guard, the limits and the log like those of the peer itself, and handlers see the peer's address.
 *
 * Each connection is a TCP connection over loopback. A pair of in-memory streams would need no port, but node:http2 hides
 * such a stream behind a socket of its own that has no address and counts as unencrypted.
 */

import { randomBytes, timingSafeEqual } from 'node:crypto';
import { once } from 'node:events';
import { type AddressInfo, connect, createServer, type Server as NetServer, type Socket } from 'node:net';
import { type ConnectionInjector, type Server, ServerCredentials } from '@grpc/grpc-js';

/** Loopback only: no other machine can reach the port. */
const HOST = '127.0.0.1';

/** Length of the secret that identifies the process's own end, in bytes. */
const SECRET_BYTES = 32;

/** How long it may take to open a connection, in milliseconds. */
const OPEN_TIMEOUT_MS = 1_000;

/** Opens connections to the server of this process. */
export interface LocalConnections {
  /**
   * @param peerAddress - the address that the server takes for the peer's
   * @returns the client's end
   */
  connect(peerAddress: string): Promise<Socket>;
  /** Closes all connections; none can be opened afterwards. */
  close(): void;
}

/** Opens nothing before the first connection. */
export function createLocalConnections(server: Server): LocalConnections {
  const sockets = new Set<Socket>();
  let injector: ConnectionInjector | undefined;
  let isClosed = false;
  return {
    connect: async (peerAddress) => {
      const { client, served } = await openPair();
      if (isClosed) {
        client.destroy();
        served.destroy();
        throw new Error('the server of this process is closed');
      }
      for (const socket of [client, served]) {
        sockets.add(socket);
        socket.once('close', () => sockets.delete(socket));
      }
      Object.defineProperties(served, {
        remoteAddress: { value: peerAddress },
        // No peer of the network can read what stays inside the process.
        encrypted: { value: true },
      });
      injector ??= server.createConnectionInjector(ServerCredentials.createInsecure());
      injector.injectConnection(served);
      return client;
    },
    close: () => {
      isClosed = true;
      for (const socket of sockets) socket.destroy();
    },
  };
}

/** The two ends of one connection. */
interface SocketPair {
  readonly client: Socket;
  readonly served: Socket;
}

/**
 * Opens a port for one connection. Other programs of this machine can connect to the port while it is open, so the served
 * end is the one that has received a secret from the client's end. Addresses and ports do not identify it: a program at
 * another loopback address can have the same port. All other connections are closed.
 */
async function openPair(): Promise<SocketPair> {
  const signal = AbortSignal.timeout(OPEN_TIMEOUT_MS);
  const secret = randomBytes(SECRET_BYTES);
  const sockets = new Set<Socket>();
  const listener = createServer();
  try {
    const identified = identifiedEnd(listener, { secret, sockets, signal });
    listener.listen({ host: HOST, port: 0, exclusive: true });
    const [client, served] = await Promise.all([
      connectTo(listener, { secret, sockets, signal }),
      identified,
    ]);
    sockets.delete(client);
    sockets.delete(served);
    return { client, served };
  } finally {
    listener.close();
    for (const socket of sockets) socket.destroy();
  }
}

/** What both ends of a connection that is being opened have in common. */
interface Opening {
  readonly secret: Buffer;
  /** The sockets to close at the end. */
  readonly sockets: Set<Socket>;
  readonly signal: AbortSignal;
}

async function connectTo(listener: NetServer, { secret, sockets, signal }: Opening): Promise<Socket> {
  await once(listener, 'listening', { signal });
  const { port } = listener.address() as AddressInfo;
  const client = connect({ host: HOST, port });
  client.on('error', () => {});
  sockets.add(client);
  await once(client, 'connect', { signal });
  client.write(secret);
  return client;
}

/** Resolves with the accepted socket whose first bytes are the secret. */
function identifiedEnd(listener: NetServer, { secret, sockets, signal }: Opening): Promise<Socket> {
  return new Promise((resolve, reject) => {
    signal.addEventListener('abort', () => reject(new Error('a local connection was not accepted in time')));
    listener.on('error', reject);
    listener.on('connection', (socket) => {
      socket.on('error', () => {});
      sockets.add(socket);
      const read = (): void => {
        const received: Buffer | null = socket.read(SECRET_BYTES);
        if (received === null) return;
        socket.off('readable', read);
        if (received.length === SECRET_BYTES && timingSafeEqual(received, secret)) resolve(socket);
        else socket.destroy();
      };
      socket.on('readable', read);
    });
  });
}
