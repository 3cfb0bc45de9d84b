/** Ports of this machine: finding free ones, and refusing those in use. */

import { readFile } from 'node:fs/promises';
import { createServer } from 'node:net';
import { SystemError } from './system-error.js';

const HOST = '127.0.0.1';
const FREE_PORT_MIN = 12_000;
const FREE_PORT_MAX_DEFAULT = 32_000;
const FREE_PORT_ATTEMPTS_MAX = 200;
const EPHEMERAL_RANGE_FILE = '/proc/sys/net/ipv4/ip_local_port_range';

/**
 * Returns a free port of 127.0.0.1.
 *
 * The port lies below the range from which the kernel assigns ports to outgoing connections. A client that reconnects
 * to a port in that range while its server is down can be assigned that very port, and the server cannot restart.
 */
export async function findFreePort(): Promise<number> {
  const max = await freePortMax();
  for (let attempt = 0; attempt < FREE_PORT_ATTEMPTS_MAX; attempt += 1) {
    const port = FREE_PORT_MIN + Math.floor(Math.random() * (max - FREE_PORT_MIN));
    if (await isPortFree(port)) return port;
  }
  throw new SystemError(`No free port was found between ${FREE_PORT_MIN} and ${max} on ${HOST}.`);
}

/** Returns true when nothing listens on this port of 127.0.0.1. */
export async function isPortFree(port: number): Promise<boolean> {
  return await new Promise((resolve) => {
    const probe = createServer();
    probe.once('error', () => resolve(false));
    probe.listen({ host: HOST, port, exclusive: true }, () => probe.close(() => resolve(true)));
  });
}

/**
 * Checks that a port is free.
 *
 * @param what - the part that needs the port, such as `auth`
 * @param howToChange - the flag or variable that sets it
 * @throws SystemError that names port, part and flag when the port is in use
 */
export async function assertPortFree(port: number, what: string, howToChange: string): Promise<void> {
  if (await isPortFree(port)) return;
  throw new SystemError(
    `Port ${port}, which ${what} needs, is taken. Stop the program that uses it, or choose another with ${howToChange}.`,
  );
}

async function freePortMax(): Promise<number> {
  try {
    const lowest = Number((await readFile(EPHEMERAL_RANGE_FILE, 'utf8')).trim().split(/\s+/)[0]);
    return lowest > FREE_PORT_MIN + 1_000 ? Math.min(lowest, FREE_PORT_MAX_DEFAULT) : FREE_PORT_MAX_DEFAULT;
  } catch {
    return FREE_PORT_MAX_DEFAULT;
  }
}
