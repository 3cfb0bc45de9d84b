/** An unmodified server of another language: the same calls directly and through a gate, then refusals and revocation. */

import { join } from 'node:path';
import type { Board } from '../shared/board.js';
import { type OpenStream, openStream, SCENARIOS, Target, unary } from './calls.js';
import type { Environment } from './environment.js';
import { type Program, startProgram } from './programs.js';

/** Streams that are open when their token is revoked. */
const REVOKED_STREAMS = 20;

/** How long a revoked stream may go on: far beyond what is measured, because this is no bench. */
const REVOKED_WITHIN_MS = 1_000;

/** `TOKEN_REVOKED` in the details. */
const REVOKED = 'TOKEN_REVOKED';

/** A server to start. */
export interface ServerProgram {
  readonly peer: string;
  readonly program: string;
  /** The words before the address to bind, and after it. */
  readonly before: readonly string[];
  readonly after: readonly string[];
}

/** Checks one server. */
export async function checkBehindGate(
  { peer, program, before, after }: ServerProgram,
  environment: Environment,
  board: Board,
): Promise<void> {
  const socket = join(environment.folder, `${peer.replace(/\W+/g, '-')}.sock`);
  const server = startProgram(program, [...before, `unix:${socket}`, ...after]);
  try {
    await server.line((line) => line.startsWith('{'));
    const gate = await environment.startGate({ upstream: `unix:${socket}`, identity: 'off' });
    try {
      await compareCalls(peer, `unix:${socket}`, `127.0.0.1:${gate.port}`, environment, board);
      await checkRefusals(peer, `127.0.0.1:${gate.port}`, board);
      await checkRevocation(peer, `127.0.0.1:${gate.port}`, environment, board);
    } finally {
      await gate.stop();
    }
    await checkIdentity(peer, `unix:${socket}`, environment, board);
  } finally {
    await server.stop();
  }
}

async function compareCalls(
  peer: string,
  direct: string,
  through: string,
  environment: Environment,
  board: Board,
): Promise<void> {
  const straight = new Target(direct, undefined);
  const gated = new Target(through, await environment.logIn('alice'));
  try {
    for (const { name, run } of SCENARIOS) {
      board.same(peer, name, await run(straight), await run(gated));
    }
  } finally {
    straight.close();
    gated.close();
  }
}

async function checkRefusals(peer: string, through: string, board: Board): Promise<void> {
  for (const [name, token, reason] of [
    ['a call without a token', undefined, 'TOKEN_MISSING'],
    ['a call with a bad token', 'nonsense', 'TOKEN_INVALID'],
  ] as const) {
    const target = new Target(through, token);
    const { code, details } = await unary(target, 'Unary', Buffer.alloc(0), target.metadata());
    const said = Buffer.from(String(details), 'hex').toString('latin1');
    board.holds(peer, name, code === 'UNAUTHENTICATED' && said.includes(reason), `${String(code)} ${said}`);
    target.close();
  }
}

async function checkRevocation(
  peer: string,
  through: string,
  environment: Environment,
  board: Board,
): Promise<void> {
  const token = await environment.logIn('bob');
  const operator = await environment.logIn('olga');
  const target = new Target(through, token);
  const streams: OpenStream[] = [];
  for (let opened = 0; opened < REVOKED_STREAMS; opened++) streams.push(openStream(target));
  await Promise.all(streams.map(({ begun }) => begun));
  const revokedMs = await environment.revoke(token, operator);
  const ends = await Promise.all(streams.map(({ ended }) => ended));
  const wrong = ends.filter(({ code, details }) => code !== 'UNAUTHENTICATED' || !details.includes(REVOKED));
  board.holds(
    peer,
    `${REVOKED_STREAMS} streams end with ${REVOKED} when their token is revoked`,
    wrong.length === 0,
    JSON.stringify(wrong[0]),
  );
  const slowest = Math.max(...ends.map(({ atMs }) => atMs - revokedMs));
  board.holds(peer, 'they end within a second', slowest < REVOKED_WITHIN_MS, `${slowest.toFixed(0)} ms`);
  const { code } = await unary(target, 'Unary', Buffer.alloc(0), target.metadata());
  board.same(peer, 'a new call with that token', 'UNAUTHENTICATED', code);
  target.close();
}

/** A second gate, with the identity: the server sees who calls, and neither the token nor what the caller says. */
async function checkIdentity(
  peer: string,
  upstream: string,
  environment: Environment,
  board: Board,
): Promise<void> {
  const gate = await environment.startGate({ upstream, workers: '2' });
  const target = new Target(`127.0.0.1:${gate.port}`, await environment.logIn('alice'));
  try {
    const metadata = target.metadata({ 'x-portcullis-roles': 'admin', 'x-kept': 'yes' });
    const { response } = await unary(target, 'Metadata', Buffer.alloc(0), metadata);
    // The digest cuts long texts, so the server is asked for their length alone.
    board.holds(
      peer,
      'the gate with two workers names the caller',
      /^\d+ bytes/.test(String(response)),
      String(response),
    );
    gate.program.signal('SIGHUP');
    const again = await unary(target, 'Unary', Buffer.from('x'), target.metadata());
    board.same(peer, 'calls go on after SIGHUP', 'OK', again['code']);
  } finally {
    target.close();
    await gate.stop();
  }
  board.holds(peer, 'the gate stops on SIGTERM', !gate.program.isRunning, 'it is still running');
}

/** Keeps a server running for the time of some work. */
export async function withServer<Result>(
  { program, before, after }: ServerProgram,
  address: string,
  work: (port: number, server: Program) => Promise<Result>,
): Promise<Result> {
  const server = startProgram(program, [...before, address, ...after]);
  try {
    const line = await server.line((text) => text.startsWith('{'));
    return await work((JSON.parse(line) as { port: number }).port, server);
  } finally {
    await server.stop();
  }
}
