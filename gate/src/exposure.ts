/** Whether the upstream can be called around the gate. Then a revoked token is worth nothing, but nobody needs one. */

import { statSync } from 'node:fs';
import { connect as connectTcp, type Socket } from 'node:net';
import { networkInterfaces } from 'node:os';
import { connect as connectTls } from 'node:tls';
import { type Address, isOnThisMachine } from './addresses.js';
import type { UpstreamSettings } from './settings.js';
import { createThrowaway } from './throwaway-certificate.js';

/** How long a probe may take, in milliseconds. */
const PROBE_TIMEOUT_MS = 1_000;

/** The bits of a mode that let other users connect to a unix socket. */
const WRITABLE_BY_OTHERS = 0o002;

/** The client preface of HTTP/2 (RFC 9113 §3.4), and an empty SETTINGS frame. */
const PREFACE = Buffer.concat([
  Buffer.from('PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n'),
  Buffer.from([0, 0, 0, 4, 0, 0, 0, 0, 0]),
]);

/**
 * How the upstream is protected, or how it can be reached around the gate.
 *
 * @returns for each way around the gate one phrase; none when it is closed, or the upstream does not answer
 */
export async function waysAround(
  upstream: Pick<UpstreamSettings, 'address' | 'tls' | 'serverName'>,
): Promise<string[]> {
  const { address, tls } = upstream;
  if (address.kind === 'unix') return socketWays(address.path);
  if (tls?.cert !== undefined) {
    if (await answers(address, upstream.serverName, {}))
      return ['the upstream answers callers without a certificate'];
    if (await answers(address, upstream.serverName, createThrowaway()))
      return ['the upstream answers callers with a certificate that nobody has signed'];
    return [];
  }
  if (!isOnThisMachine(address))
    return ['the upstream is on the network, and the gate shows it no certificate'];
  const open = await Promise.all(
    ownAddresses().map(async (host) => ((await accepts(host, address.port)) ? [host] : [])),
  );
  return open.flat().map((host) => `the port of the upstream is also open on ${host}`);
}

/** The permissions of the socket decide who may connect (unix(7)); its folder may be stricter still. */
function socketWays(path: string): string[] {
  try {
    const isOpen = (statSync(path).mode & WRITABLE_BY_OTHERS) !== 0;
    return isOpen && isReachableByOthers(path) ? [`every user of this machine may connect to ${path}`] : [];
  } catch {
    return [];
  }
}

function isReachableByOthers(path: string): boolean {
  const folders = path.split('/').slice(0, -1);
  return folders.every((_, depth) => {
    const folder = folders.slice(0, depth + 1).join('/') || (path.startsWith('/') ? '/' : '.');
    return (statSync(folder).mode & 0o001) !== 0;
  });
}

/** The addresses of this machine that others can reach. */
function ownAddresses(): string[] {
  return Object.values(networkInterfaces())
    .flatMap((addresses) => addresses ?? [])
    .filter(({ internal, address }) => !internal && !address.startsWith('fe80:'))
    .map(({ address }) => address);
}

function accepts(host: string, port: number): Promise<boolean> {
  return probe(connectTcp({ host, port }), 'connect');
}

/** With TLS 1.3 a server refuses a certificate, or none, after the handshake, so its first bytes decide. */
function answers(
  address: Address & { kind: 'tcp' },
  servername: string,
  certificate: { readonly cert?: string; readonly key?: string },
): Promise<boolean> {
  // What is asked is whether it answers, not who it is.
  const socket = connectTls({
    ...certificate,
    host: address.host,
    port: address.port,
    servername,
    rejectUnauthorized: false,
    ALPNProtocols: ['h2'],
  });
  socket.once('secureConnect', () => socket.write(PREFACE));
  return probe(socket, 'data');
}

function probe(socket: Socket, event: 'connect' | 'data'): Promise<boolean> {
  return new Promise((resolve) => {
    const done = (result: boolean): void => {
      resolve(result);
      socket.destroy();
    };
    socket.setTimeout(PROBE_TIMEOUT_MS, () => done(false));
    socket.once('error', () => done(false));
    socket.once('close', () => done(false));
    socket.once(event, () => done(true));
  });
}
