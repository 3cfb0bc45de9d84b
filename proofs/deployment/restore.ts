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

/** The gate keeps its list throughout, and inventory starts with the restored database. */
const SERVERS = [
  { name: 'gate', address: 'localhost:50055', method: '/greeter.v1.GreeterService/SayHello' },
  { name: 'inventory', address: 'localhost:50052', method: '/inventory.v1.InventoryService/ListItems' },
] as const;
/** What a call with a revoked token may end with while parts of the system are stopped. */
const REJECTED = [
  'TOKEN_REVOKED',
  'TOKEN_INVALID',
  'REVOCATION_STATE_STALE',
  'DEPENDENCY_UNAVAILABLE',
  'UNAVAILABLE',
  'DEADLINE_EXCEEDED',
];

const CALL_MS_MAX = 5_000;
/** How long an instance may take to admit or reject a token after a change, in milliseconds. */
const EFFECT_MS_MAX = 60_000;
const POLL_MS = 250;

const LOGIN = `npx portcullis login --user admin --ca ${SECRETS}/ca.crt --password-file ${SECRETS}/admin-password`;

/** Reasons of revocations, by which security events are found. */
const BEFORE = 'revoked before the dump';
const AFTER = 'revoked after the dump';

/**
 * Revokes one token before the dump and one after it, destroys the database, and restores it. Neither token may be admitted
 * at any moment from the loss on, and the third, which nothing has revoked, must end with the epoch.
 */
export async function rehearseRestore(options: {
  readonly podman: Podman;
  readonly shell: Shell;
  readonly board: Board;
  readonly onStep: (text: string) => void;
}): Promise<void> {
  const { podman, shell, board, onStep } = options;
  onStep('logging in for the rehearsal of a restore');
  const servers = await Promise.all(SERVERS.map((server) => openServer(shell, server)));
  const become = async (token: string, outcome: string): Promise<void> => {
    for (const server of servers) await becomes(server, token, outcome);
  };
  const tokens = { early: await logIn(shell), late: await logIn(shell), kept: await logIn(shell) };
  for (const token of Object.values(tokens)) await become(token, 'OK');
  await revoke(tokens.early, BEFORE, shell);
  await become(tokens.early, 'TOKEN_REVOKED');
  await waitUntil(async () => (await events(shell)).includes(BEFORE), {
    timeoutMs: EFFECT_MS_MAX,
    pollMs: POLL_MS,
    failure: 'the revocation is not among the security events',
  });
  if (!(await followPage({ page: PAGE, section: 'Back up', shell, board, onStep }))) return;
  await revoke(tokens.late, AFTER, shell);
  await become(tokens.late, 'TOKEN_REVOKED');

  onStep('losing the database');
  await podman.run('rm', '--force', '--time=5', containerOf('postgres'));
  await podman.run('volume', 'rm', 'portcullis_postgres');
  const watch = watchRejected(servers, [tokens.early, tokens.late]);
  try {
    if (!(await followPage({ page: PAGE, section: 'Restore', shell, board, onStep }))) return;
    onStep('calling with the tokens of before');
    const fresh = await logIn(shell);
    await become(fresh, 'OK');
    for (const server of servers) {
      for (const [name, token] of Object.entries(tokens)) {
        const outcome = await outcomeOf(server, token);
        board.same(
          'restore',
          `${server.name} rejects the ${name} token of the former epoch`,
          'TOKEN_INVALID',
          outcome,
        );
      }
    }
    const recorded = await events(shell);
    board.holds('restore', 'what was recorded before the dump is there', recorded.includes(BEFORE), recorded);
    board.holds(
      'restore',
      'what was recorded after the dump is not there',
      !recorded.includes(AFTER),
      recorded,
    );
  } finally {
    const admitted = await watch.stop();
    board.same('restore', 'no revoked token was admitted at any moment', [], admitted);
    for (const { client } of servers) client.close();
  }
}

/** Security events with their reasons. */
async function events(shell: Shell): Promise<string> {
  const { output } = await runCommands('npx portcullis --json events --limit 200', shell);
  return output;
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

async function revoke(token: string, reason: string, shell: Shell): Promise<void> {
  const command = 'printf %s "$TOKEN" | npx portcullis revoke --token - --reason "$REASON"';
  const environment = { ...shell.environment, TOKEN: token, REASON: reason };
  const { code, output } = await runCommands(command, { ...shell, environment });
  if (code !== 0) throw new Error(`a token could not be revoked: ${output}`);
}

/** A server that is called with tokens of one's choice. */
interface OpenServer {
  readonly name: string;
  readonly method: string;
  readonly client: Client;
}

async function openServer(
  shell: Shell,
  { name, address, method }: (typeof SERVERS)[number],
): Promise<OpenServer> {
  const ca = await readFile(join(shell.cwd, SECRETS, 'ca.crt'));
  return { name, method, client: new Client(address, credentials.createSsl(ca)) };
}

/** @returns OK, or the reason of the error, or the name of its status */
function outcomeOf({ client, method }: OpenServer, token: string): Promise<string> {
  return new Promise((resolve) => {
    const metadata = new Metadata();
    metadata.set('authorization', `Bearer ${token}`);
    const bytes = (value: Buffer): Buffer => value;
    const options = { deadline: Date.now() + CALL_MS_MAX };
    client.makeUnaryRequest(method, bytes, bytes, Buffer.alloc(0), metadata, options, (error) => {
      const { reason, code } = errorOf(error);
      resolve(error === null ? 'OK' : reason || (status[code] ?? String(code)));
    });
  });
}

/** Waits until a token has an outcome. @throws Error after {@link EFFECT_MS_MAX} */
async function becomes(server: OpenServer, token: string, outcome: string): Promise<void> {
  let last = '';
  await waitUntil(
    async () => {
      last = await outcomeOf(server, token);
      return last === outcome;
    },
    {
      timeoutMs: EFFECT_MS_MAX,
      pollMs: POLL_MS,
      failure: () => `${server.name}: expected ${outcome}, got ${last}`,
    },
  );
}

/** Calls with revoked tokens again and again, until it is stopped, which returns the outcomes of calls that were admitted. */
function watchRejected(
  servers: readonly OpenServer[],
  tokens: readonly string[],
): { stop(): Promise<readonly string[]> } {
  const stopping = new AbortController();
  const admitted: string[] = [];
  const work = async (): Promise<void> => {
    while (!stopping.signal.aborted) {
      for (const server of servers) {
        for (const token of tokens) {
          const outcome = await outcomeOf(server, token);
          if (!REJECTED.includes(outcome)) admitted.push(`${server.name}: ${outcome}`);
        }
      }
      await sleep(POLL_MS);
    }
  };
  const working = work();
  return {
    stop: async () => {
      stopping.abort();
      await working;
      return admitted;
    },
  };
}
