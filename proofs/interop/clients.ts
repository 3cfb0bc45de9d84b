/** A client in another language: grpcio, whose core is that of C++, Ruby, PHP and C#. */

import { join } from 'node:path';
import { PROJECT_FOLDER } from '../../scripts/system/project.js';
import type { Board } from '../shared/board.js';
import { type ServerProgram, withServer } from './behind-gate.js';
import type { Environment } from './environment.js';
import { startProgram } from './programs.js';

const CLIENT = join(PROJECT_FOLDER, 'proofs', 'interop', 'upstreams', 'python', 'client.py');
const PEER = 'grpcio (Python) as client';

/** One line of the client. */
interface Line {
  readonly call: string;
  readonly result?: unknown;
  readonly code?: string;
  readonly details?: string;
}

/** What the client receives of each call. */
const EXPECTED: readonly Omit<Line, 'details'>[] = [
  { call: 'unary', result: 'hello' },
  { call: 'large', result: 3 * 1024 * 1024 },
  { call: 'gzip', result: true },
  { call: 'missing', code: 'UNAUTHENTICATED' },
  { call: 'bad', code: 'UNAUTHENTICATED' },
  { call: 'fail', code: 'ABORTED' },
  { call: 'server stream', result: 100 },
  { call: 'client stream', result: '100 messages, 300 bytes' },
  { call: 'bidi', result: true },
];

/** Runs the client through a gate, and revokes its token while it reads a stream. */
export async function checkPythonClient(
  python: string,
  server: ServerProgram,
  environment: Environment,
  board: Board,
): Promise<void> {
  const socket = join(environment.folder, 'client.sock');
  await withServer(server, `unix:${socket}`, async () => {
    const gate = await environment.startGate({ upstream: `unix:${socket}` });
    const token = await environment.logIn('bob');
    const operator = await environment.logIn('olga');
    const client = startProgram(python, [CLIENT, `127.0.0.1:${gate.port}`, token]);
    try {
      await client.line((line) => line.includes('stream begun'));
      await environment.revoke(token, operator);
      const last = JSON.parse(await client.line((line) => line.includes('revoked stream'))) as Line;
      const lines = client.lines.map((line) => JSON.parse(line) as Line);
      for (const { call, result, code } of EXPECTED) {
        const got = lines.find((line) => line.call === call);
        board.same(PEER, call, { result, code }, { result: got?.result, code: got?.code });
      }
      const details = Buffer.from(last.details ?? '', 'hex').toString('latin1');
      const isRight = last.code === 'UNAUTHENTICATED' && details.includes('TOKEN_REVOKED');
      board.holds(PEER, 'a revoked stream ends with TOKEN_REVOKED', isRight, JSON.stringify(last));
    } finally {
      await client.stop();
      await gate.stop();
    }
  });
}
