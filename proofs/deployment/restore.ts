/** docs/operating/back-up.md, rehearsed: dumps of a running system are restored into a new server, as the page says. */

import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { Client, credentials, Metadata, status } from '@grpc/grpc-js';
import { errorOf } from '@portcullis/guard/client';
import type { Board } from '../shared/board.js';
import { waitUntil } from '../shared/waiting.js';
import { followPage, runCommands, type Shell } from './page.js';
import { containerOf, type Podman } from './podman.js';

const PAGE = join('docs', 'operating', 'back-up.md');
const SECRETS = join('deploy', 'compose', 'secrets');
const GATE = 'localhost:50055';
const METHOD = '/greeter.v1.GreeterService/SayHello';

const CALL_MS_MAX = 5_000;
/** How long an instance may take to admit or reject a token after a change, in milliseconds. */
const EFFECT_MS_MAX = 60_000;
const POLL_MS = 250;

const LOGIN = `npx portcullis login --user admin --ca ${SECRETS}/ca.crt --password-file ${SECRETS}/admin-password`;

/**
 * Revokes one token before the dump and one after it, destroys the database, and restores it. Neither token may be admitted
 * at any moment from its revocation on, and the third, which nothing has revoked, must end with the epoch.
 */
export async function rehearseRestore(options: {
  readonly podman: Podman;
  readonly shell: Shell;
  readonly board: Board;
  readonly onStep: (text: string) => void;
}): Promise<void> {
  const { podman, shell, board, onStep } = options;
  onStep('logging in for the rehearsal of a restore');
  const gate = await openGate(shell);
  try {
    const early = await logIn(shell);
    const late = await logIn(shell);
    const kept = await logIn(shell);
    for (const token of [early, late, kept]) await gate.becomes(token, 'OK');
    await revoke(early, shell);
    await gate.becomes(early, 'TOKEN_REVOKED');
    if (!(await followPage({ page: PAGE, section: 'Back up', shell, board, onStep }))) return;
    await revoke(late, shell);
    await gate.becomes(late, 'TOKEN_REVOKED');

    onStep('losing the database');
    await podman.run('rm', '--force', '--time=5', containerOf('postgres'));
    await podman.run('volume', 'rm', 'portcullis_postgres');
    const watch = watchRejected(gate, [early, late]);
    const isRestored = await followPage({ page: PAGE, section: 'Restore', shell, board, onStep });
    if (isRestored) {
      onStep('calling with the tokens of before');
      const fresh = await logIn(shell);
      await gate.becomes(fresh, 'OK');
      board.same('restore', 'a new login is admitted', 'OK', await gate.outcomeOf(fresh));
      for (const [name, token] of Object.entries({ early, late, kept })) {
        const outcome = await gate.outcomeOf(token);
        board.same('restore', `the ${name} token is rejected in the new epoch`, 'TOKEN_INVALID', outcome);
      }
      const { code, output } = await runCommands('npx portcullis doctor', shell);
      board.same('restore', 'doctor finds nothing wrong', '', code === 0 ? '' : output);
    }
    const { calls, admitted } = await watch.stop();
    board.holds('restore', 'no revoked token was admitted', admitted === 0, `${admitted} of ${calls} calls`);
    board.holds('restore', 'calls were made throughout', calls > 10, `${calls} calls`);
  } finally {
    gate.close();
  }
}

/** Logs in. @returns an access token of a session of its own */
async function logIn(shell: Shell): Promise<string> {
  let token = '';
  await waitUntil(
    async () => {
      const { code, output } = await runCommands(`${LOGIN} > /dev/null 2>&1 && npx portcullis token`, shell);
      if (code === 0) token = output.trim();
      return code === 0;
    },
    { timeoutMs: EFFECT_MS_MAX, pollMs: POLL_MS, failure: 'the admin cannot log in' },
  );
  return token;
}

async function revoke(token: string, shell: Shell): Promise<void> {
  const command = 'printf %s "$TOKEN" | npx portcullis revoke --token - --reason rehearsal';
  const environment = { ...shell.environment, TOKEN: token };
  const { code, output } = await runCommands(command, { ...shell, environment });
  if (code !== 0) throw new Error(`a token could not be revoked: ${output}`);
}

/** The gate, called with tokens of one's choice. */
interface Gate {
  /** @returns OK, or the reason of the error, or the name of its status */
  outcomeOf(token: string): Promise<string>;
  /** Waits until a token has an outcome. @throws Error after {@link EFFECT_MS_MAX} */
  becomes(token: string, outcome: string): Promise<void>;
  close(): void;
}

async function openGate(shell: Shell): Promise<Gate> {
  const ca = await readFile(join(shell.cwd, SECRETS, 'ca.crt'));
  const client = new Client(GATE, credentials.createSsl(ca));
  const outcomeOf = (token: string): Promise<string> =>
    new Promise((resolve) => {
      const metadata = new Metadata();
      metadata.set('authorization', `Bearer ${token}`);
      const bytes = (value: Buffer): Buffer => value;
      const options = { deadline: Date.now() + CALL_MS_MAX };
      client.makeUnaryRequest(METHOD, bytes, bytes, Buffer.alloc(0), metadata, options, (error) => {
        const { reason, code } = errorOf(error);
        resolve(error === null ? 'OK' : reason || (status[code] ?? String(code)));
      });
    });
  return {
    outcomeOf,
    becomes: async (token, outcome) => {
      let last = '';
      await waitUntil(
        async () => {
          last = await outcomeOf(token);
          return last === outcome;
        },
        { timeoutMs: EFFECT_MS_MAX, pollMs: POLL_MS, failure: () => `expected ${outcome}, got ${last}` },
      );
    },
    close: () => client.close(),
  };
}

/** Calls with revoked tokens again and again. */
function watchRejected(
  gate: Gate,
  tokens: readonly string[],
): { stop(): Promise<{ readonly calls: number; readonly admitted: number }> } {
  const stopping = new AbortController();
  let calls = 0;
  let admitted = 0;
  const work = async (): Promise<void> => {
    while (!stopping.signal.aborted) {
      for (const token of tokens) {
        calls += 1;
        if ((await gate.outcomeOf(token)) === 'OK') admitted += 1;
      }
      await sleep(POLL_MS);
    }
  };
  const working = work();
  return {
    stop: async () => {
      stopping.abort();
      await working;
      return { calls, admitted };
    },
  };
}
