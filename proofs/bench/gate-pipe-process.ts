/** A process that passes bytes from one socket to another and looks at none: what a proxy in Node costs at least. */

import { connect, createServer, type Socket } from 'node:net';
import { executeCommands } from './worker.js';

const commands = {
  /** Opens a port whose connections lead to another one. @returns its number */
  pipe: async (upstreamPort: number): Promise<number> => {
    const server = createServer({ noDelay: true }, (client) => {
      const upstream = connect({ host: '127.0.0.1', port: upstreamPort, noDelay: true });
      pass(client, upstream);
      pass(upstream, client);
    });
    return await new Promise((resolve, reject) => {
      server.once('error', reject);
      server.listen({ host: '127.0.0.1', port: 0 }, () => {
        const address = server.address();
        resolve(typeof address === 'object' && address !== null ? address.port : 0);
      });
    });
  },
};

export type PipeCommands = typeof commands;

function pass(from: Socket, to: Socket): void {
  from.on('data', (chunk) => {
    if (!to.write(chunk)) from.pause();
  });
  to.on('drain', () => from.resume());
  from.once('close', () => to.destroy());
  from.on('error', () => to.destroy());
}

executeCommands(commands);
