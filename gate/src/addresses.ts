/** Addresses of sockets: where the gate listens, and where its upstream does. */

import { isIPv4, isIPv6 } from 'node:net';

/** The address of a listening socket. */
export type Address =
  | { readonly kind: 'unix'; readonly path: string }
  | { readonly kind: 'tcp'; readonly host: string; readonly port: number };

/** Maximum length of the path of a unix socket, in bytes (`sun_path` of Linux, less its NUL). */
const UNIX_PATH_BYTES_MAX = 107;

const PORT_MAX = 65_535;

const UNIX = /^unix:(?:\/\/(?=\/))?(.+)$/s;
const TCP = /^(?:\[([0-9A-Fa-f:.]+)\]|([A-Za-z0-9._-]+)):(\d{1,5})$/;

/**
 * Reads `HOST:PORT`, `[IPV6]:PORT`, `unix:PATH` or `unix:///PATH`. Hosts are names or IP addresses.
 *
 * @returns the address, or what is wrong with the text
 */
export function parseAddress(text: string): Address | { readonly problem: string } {
  const unix = UNIX.exec(text)?.[1];
  if (unix !== undefined) {
    if (unix.includes('\0')) return { problem: 'has a NUL in its path' };
    return Buffer.byteLength(unix) > UNIX_PATH_BYTES_MAX
      ? { problem: `has a path of more than ${UNIX_PATH_BYTES_MAX} bytes` }
      : { kind: 'unix', path: unix };
  }
  const [, bracketed, plain, digits = ''] = TCP.exec(text) ?? [];
  const host = bracketed ?? plain;
  const port = Number(digits);
  const isUsable = host !== undefined && (bracketed === undefined || isIPv6(bracketed)) && port <= PORT_MAX;
  if (!isUsable) return { problem: `must be HOST:PORT or unix:PATH, got ${JSON.stringify(text)}` };
  return { kind: 'tcp', host, port };
}

/** The address in the form that {@link parseAddress} reads. */
export function formatAddress(address: Address): string {
  if (address.kind === 'unix') return `unix:${address.path}`;
  return `${isIPv6(address.host) ? `[${address.host}]` : address.host}:${address.port}`;
}

/** What keeps a port from being opened, by the name of the fault. */
const PORT_FAULTS: Readonly<Record<string, string>> = {
  EACCES: 'this user may not open it',
  EADDRINUSE: 'another program listens there, or a socket was left behind',
  EADDRNOTAVAIL: 'this machine does not have the address',
  EAI_AGAIN: 'its name is not known',
  ENOENT: 'the folder of the socket does not exist',
  ENOTFOUND: 'its name is not known',
};

/** The error of a port that cannot be opened, by the name of its setting. */
export function portError(setting: string, address: Address, cause: unknown): Error {
  const code =
    /\bE[A-Z]{2,}(?:_[A-Z]+)?\b/.exec(cause instanceof Error ? cause.message : '')?.[0] ?? 'unknown error';
  const why = PORT_FAULTS[code];
  return new Error(
    `${setting} ${formatAddress(address)} cannot be opened${why === undefined ? '' : `: ${why}`} (${code})`,
    { cause },
  );
}

/** Whether only processes of this machine can reach the address. */
export function isOnThisMachine(address: Address): boolean {
  if (address.kind === 'unix' || address.host === 'localhost' || address.host === '::1') return true;
  return isIPv4(address.host) && address.host.startsWith('127.');
}
