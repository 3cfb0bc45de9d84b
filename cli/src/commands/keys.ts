/** `portcullis keys`. */

import { randomUUID } from 'node:crypto';
import type { Command } from 'commander';
import { type Key, KeyPurpose, KeyServiceClient, KeyState } from '../../gen/auth/v1/key_service.js';
import type { Cli } from '../cli.js';
import { noteRevoked } from '../enforcement.js';
import { CommandError, EXIT } from '../failures.js';
import { type Cell, durationText, tableOf } from '../tables.js';
import { note, writeResult } from '../terminal.js';

const PURPOSES = {
  token: KeyPurpose.KEY_PURPOSE_TOKEN,
  broadcast: KeyPurpose.KEY_PURPOSE_BROADCAST,
  receipt: KeyPurpose.KEY_PURPOSE_RECEIPT,
} as const;

const STATES: Readonly<Record<number, string>> = {
  [KeyState.KEY_STATE_NEXT]: 'next',
  [KeyState.KEY_STATE_SIGNING]: 'signing',
  [KeyState.KEY_STATE_VERIFY_ONLY]: 'verify-only',
  [KeyState.KEY_STATE_RETIRED]: 'retired',
};

export function addKeyCommands(program: Command, cli: Cli): void {
  const keys = program.command('keys').description('the keys that sign tokens, broadcasts and receipts');
  keys
    .command('list', { isDefault: true })
    .description('list the keys, newest first')
    .option('--all', 'list retired keys, too')
    .action((options: { readonly all?: true }) => listKeys(cli, options.all === true));
  keys
    .command('rotate')
    .description('let the next key sign')
    .option('--purpose <name>', 'token, broadcast or receipt', 'token')
    .option(
      '--emergency',
      'the key may have leaked: revoke it, and with it all that it signed, perhaps your own token',
    )
    .option('--reason <text>', 'why, for the receipt and the security event')
    .action((options: RotateOptions) => rotateKey(cli, options));
}

async function listKeys(cli: Cli, isAll: boolean): Promise<void> {
  await cli.inSession(async (session, terminal) => {
    const client = session.client(KeyServiceClient);
    const page = await session.call(client.listKeys.bind(client), { pageSize: 200, pageToken: '' });
    const keys = page.keys.filter(({ state }) => isAll || state !== KeyState.KEY_STATE_RETIRED);
    const shown = keys.map((key) => ({
      ...key,
      purpose: purposeOf(key),
      state: STATES[key.state] ?? 'unknown',
    }));
    writeResult(terminal, { keys: shown }, () =>
      tableOf(
        ['KEY', 'SIGNS', 'STATE', 'ALGORITHM', 'SIGNING SINCE', 'AGE'],
        shown.map((key) => [
          key.kid,
          key.purpose,
          stateCell(key.state),
          key.algorithm,
          key.signTime?.toISOString().slice(0, 10) ?? '',
          key.createTime === undefined
            ? ''
            : durationText(Math.max(0, Date.now() - key.createTime.getTime())),
        ]),
        terminal,
      ),
    );
  });
}

function purposeOf(key: Key): string {
  return Object.entries(PURPOSES).find(([, purpose]) => purpose === key.purpose)?.[0] ?? 'unknown';
}

function stateCell(state: string): Cell {
  return state === 'signing' ? { text: state, tone: 'good' } : state;
}

interface RotateOptions {
  readonly purpose: string;
  readonly emergency?: boolean;
  readonly reason?: string;
}

async function rotateKey(
  cli: Cli,
  { purpose, emergency = false, reason = '' }: RotateOptions,
): Promise<void> {
  if (!Object.hasOwn(PURPOSES, purpose)) {
    throw new CommandError('--purpose is token, broadcast or receipt.', { exitCode: EXIT.usage });
  }
  await cli.inSession(async (session, terminal) => {
    const client = session.client(KeyServiceClient);
    const rotated = await session.call(client.rotateKey.bind(client), {
      purpose: PURPOSES[purpose as keyof typeof PURPOSES],
      emergency,
      reason,
      requestId: randomUUID(),
    });
    const { signingKey, formerKey, sequence } = rotated;
    writeResult(
      terminal,
      rotated,
      () => `${signingKey?.kid} signs now; ${formerKey?.kid} ${emergency ? 'is revoked' : 'only verifies'}.`,
    );
    if (sequence === 0n) return;
    noteRevoked(terminal, rotated);
    note(terminal, 'If the key had signed your own token, log in again.');
  });
}
