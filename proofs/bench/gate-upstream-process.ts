/** The server behind gates and proxies: grpc-js without a guard, which does as little as it can for each call. */

import { Server, ServerCredentials, type ServerWritableStream } from '@grpc/grpc-js';
import { ECHO, ECHO_HANDLERS, FLOOD_PATH } from './echo.js';
import { executeCommands } from './worker.js';

const PART = Buffer.alloc(8 * 1024, 'x');
const identity = (bytes: Buffer): Buffer => bytes;

/** What its client does not read fills every window on the way. */
const FLOOD = {
  Flood: {
    path: FLOOD_PATH,
    requestStream: false,
    responseStream: true,
    requestSerialize: identity,
    requestDeserialize: identity,
    responseSerialize: identity,
    responseDeserialize: identity,
  },
} as const;

const commands = {
  /** Opens a port. @returns its number */
  serve: async (): Promise<number> => {
    const server = new Server();
    server.addService(ECHO, ECHO_HANDLERS);
    server.addService(FLOOD, { Flood: flood });
    return await new Promise((resolve, reject) => {
      server.bindAsync('127.0.0.1:0', ServerCredentials.createInsecure(), (error, port) =>
        error === null ? resolve(port) : reject(error),
      );
    });
  },
};

export type UpstreamCommands = typeof commands;

function flood(call: ServerWritableStream<Buffer, Buffer>): void {
  const write = (): void => {
    while (!call.cancelled && call.write(PART));
  };
  call.on('drain', write);
  call.once('cancelled', () => call.end());
  write();
}

executeCommands(commands);
