/** Opening ports, with errors that tell an operator which variable to change. */
import { lookup } from 'node:dns/promises';
import { createServer, isIP } from 'node:net';
import { type Server, ServerCredentials } from '@grpc/grpc-js';
import { parseHostPort } from '../config/env.js';
import { OperatorError } from './operator-error.js';

/** An address to listen on, and the variable that sets it. */
export interface ListenAddress {
  /** `HOST:PORT`; port 0 stands for any free one. */
  readonly address: string;
  readonly variable: string;
}

/** A port or an address that could not be opened; the message is meant for the operator. */
export class ListenError extends OperatorError {
  constructor(message: string, cause: unknown) {
    super(message, { cause });
    this.name = 'ListenError';
  }
}

/**
 * Binds the gRPC server.
 *
 * @returns the address with the real port
 * @throws ListenError
 */
export async function bindServer(
  server: Server,
  listen: ListenAddress,
  credentials: ServerCredentials = ServerCredentials.createInsecure(),
): Promise<string> {
  const { host } = await requireFreePort(listen);
  return new Promise((resolve, reject) => {
    server.bindAsync(listen.address, credentials, (error, port) => {
      if (error === null) resolve(joinHostPort(host, port));
      else reject(listenError(listen, error));
    });
  });
}

/**
 * Parses the address, and checks that its port is free on every address of its host. grpc-js is content when one of
 * them could be bound, and reports why another could not only in words.
 *
 * @throws ListenError
 */
export async function requireFreePort(listen: ListenAddress): Promise<{ host: string; port: number }> {
  const parsed = parseHostPort(listen.address);
  if (parsed === undefined) throw new ListenError(`${listen.variable} must be HOST:PORT`, undefined);
  try {
    for (const host of await resolveHost(parsed.host)) await openOnce(host, parsed.port);
  } catch (error) {
    throw listenError(listen, error);
  }
  return parsed;
}

/** What an error of `listen` means, with what the operator can do about it. */
export function listenError({ address, variable }: ListenAddress, error: unknown): ListenError {
  if (error instanceof ListenError) return error;
  const { host = '', port = 0 } = parseHostPort(address) ?? {};
  const text = error instanceof Error ? `${'code' in error ? String(error.code) : ''} ${error.message}` : '';
  if (text.includes('EADDRINUSE')) {
    const advice = `Stop the program that uses it, or set ${variable} to another HOST:PORT.`;
    return new ListenError(`Port ${port} on ${host} is taken. ${advice}`, error);
  }
  if (text.includes('EACCES')) {
    const problem = `Port ${port} on ${host} may not be opened by this user.`;
    return new ListenError(`${problem} Set ${variable} to another HOST:PORT.`, error);
  }
  const advice = `Set ${variable} to an address of this machine.`;
  return new ListenError(`Cannot listen on ${address}. ${advice}`, error);
}

/** `HOST:PORT`, with an IPv6 address in brackets. */
export function joinHostPort(host: string, port: number): string {
  return isIP(host) === 6 ? `[${host}]:${port}` : `${host}:${port}`;
}

async function resolveHost(host: string): Promise<string[]> {
  if (isIP(host) !== 0) return [host];
  const all = await lookup(host, { all: true });
  return all.map(({ address }) => address);
}

function openOnce(host: string, port: number): Promise<void> {
  return new Promise((resolve, reject) => {
    const socket = createServer();
    socket.once('error', reject);
    socket.listen({ host, port, exclusive: true }, () => socket.close(() => resolve()));
  });
}
