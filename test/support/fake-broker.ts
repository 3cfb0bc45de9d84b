/** A broker of which a test decides every answer: what a real one does only when it is broken or overloaded. */

import { type AddressInfo, createServer, type Socket } from 'node:net';

/** A server that speaks enough of the NATS protocol for a client to connect. */
export interface FakeBroker {
  readonly port: number;
  /** The open connections, in their order. */
  readonly sockets: readonly Socket[];
  /** Number of connections so far. */
  connections(): number;
  /** The lines that clients have sent. */
  readonly lines: readonly string[];
  stop(): Promise<void>;
}

/** How a broker behaves. Default: it accepts every client, and answers every ping. */
export interface FakeBrokerOptions {
  /** Members of its INFO. */
  readonly info?: Readonly<Record<string, unknown>>;
  /** Called before INFO is sent; whatever it resolves with `false` gets none. */
  readonly onConnection?: (socket: Socket, number: number) => boolean | Promise<boolean>;
  /** Answers a line of a client; undefined for the default answer. */
  readonly answer?: (line: string, socket: Socket, number: number) => string | undefined;
}

/** Starts a broker at a free port of this machine. */
export async function startFakeBroker(options: FakeBrokerOptions = {}): Promise<FakeBroker> {
  const { info = {}, onConnection = () => true, answer = () => undefined } = options;
  const sockets: Socket[] = [];
  const lines: string[] = [];
  let connections = 0;
  const server = createServer((socket) => {
    connections += 1;
    const number = connections;
    sockets.push(socket);
    socket.on('error', () => {});
    socket.on('close', () => sockets.splice(sockets.indexOf(socket), 1));
    let rest = '';
    socket.on('data', (chunk) => {
      const received = `${rest}${chunk.toString('latin1')}`.split('\r\n');
      rest = received.pop() ?? '';
      for (const line of received) {
        lines.push(line);
        socket.write(answer(line, socket, number) ?? (line === 'PING' ? 'PONG\r\n' : ''));
      }
    });
    const greet = async (): Promise<void> => {
      if (!(await onConnection(socket, number))) return;
      const about = { server_id: 'FAKE', version: '2.10.0', proto: 1, max_payload: 1_048_576, ...info };
      socket.write(`INFO ${JSON.stringify(about)}\r\n`);
    };
    void greet();
  });
  await new Promise<void>((resolve) => {
    server.listen(0, '127.0.0.1', resolve);
  });
  return {
    port: (server.address() as AddressInfo).port,
    sockets,
    lines,
    connections: () => connections,
    stop: () =>
      new Promise((resolve) => {
        server.close(() => resolve());
        for (const socket of sockets) socket.destroy();
      }),
  };
}
