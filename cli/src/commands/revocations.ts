/** `portcullis revocations` and `portcullis receipt`. */

import { readFile, writeFile } from 'node:fs/promises';
import { errorOf } from '@portcullis/guard/client';
import type { Command } from 'commander';
import { EvidenceServiceClient } from '../../gen/auth/v1/evidence_service.js';
import { EntryKind, RevocationServiceClient } from '../../gen/portcullis/revocation/v1/revocation.js';
import type { Cli } from '../cli.js';
import { findSessionId, findUser, rowsFrom, userNames } from '../directory.js';
import { CommandError, EXIT } from '../failures.js';
import { exportFinalReceipt, exportReceipt } from '../final-receipt.js';
import { rowsOf } from '../options.js';
import { describeReceipt, type Receipt, readReceipt, verifyReceipt } from '../receipt-file.js';
import type { Session } from '../session.js';
import { tableOf, timeText } from '../tables.js';
import { note, type Terminal, writeResult } from '../terminal.js';

export function addRevocationCommands(program: Command, cli: Cli): void {
  program
    .command('revocations')
    .description('list the revocations in the log, newest first')
    .option('--limit <number>', 'at most so many', rowsOf, 50)
    .option('--of <what>', 'only those of a user by name, or of a token, session, client or key by its id')
    .option('--by <who>', 'only those of a user by name, or of a client by its id')
    .action((options: ListOptions) => listRevocations(cli, options));
  const receipt = program
    .command('receipt')
    .description('the receipt of a revocation: who, when, why, and which instance enforced it when');
  receipt
    .command('show <number>', { isDefault: true })
    .description('print a receipt, or write it to a signed file')
    .option(
      '--export <file>',
      'write the signed receipt to a file once it is final, and the keys beside it to FILE.jwks',
    )
    .option('--now', 'write it as it is, also when it is not final yet')
    .option('--epoch <epoch>', 'the epoch of the log, as receipts state it; default: the present one')
    .action((number: string, options: ShowOptions) => showReceipt(cli, number, options));
  receipt
    .command('list')
    .description('list the kept receipts, newest first, also those that have left the log')
    .option('--limit <number>', 'at most so many', rowsOf, 50)
    .action((options: { readonly limit: number }) => listReceipts(cli, options.limit));
  receipt
    .command('keys')
    .description('print the public keys that verify receipts, as a JWK set')
    .action(() => printKeys(cli));
  receipt
    .command('verify <file>')
    .description('verify a signed receipt offline')
    .requiredOption('--jwks <file>', 'the published keys, as portcullis receipt keys prints them')
    .action((file: string, options: { readonly jwks: string }) =>
      verifyFile(cli.terminal(), file, options.jwks),
    );
}

const KINDS: Readonly<Record<number, string>> = {
  [EntryKind.ENTRY_KIND_TOKEN]: 'token',
  [EntryKind.ENTRY_KIND_SESSION]: 'session',
  [EntryKind.ENTRY_KIND_USER]: 'user',
  [EntryKind.ENTRY_KIND_CLIENT]: 'client',
  [EntryKind.ENTRY_KIND_KEY]: 'key',
  [EntryKind.ENTRY_KIND_CLAIM]: 'claim',
};

interface ListOptions {
  readonly limit: number;
  readonly of?: string;
  readonly by?: string;
}

/** The id of a user by name, or of a session by the name that `sessions` prints; what else it is, is its id already. */
async function idOf(session: Session, text = ''): Promise<string> {
  if (text === '') return '';
  if (SESSION_NAME.test(text)) return await findSessionId(session, text);
  const user = await findUser(session, text).catch((error: unknown) => {
    if (error instanceof CommandError || errorOf(error).reason === 'FIELD_INVALID') return undefined;
    throw error;
  });
  return user?.userId ?? text;
}

/** Such as `alice/3f9a1c0b`. */
const SESSION_NAME = /^[^/]+\/[0-9a-f-]{4,36}$/;

async function listRevocations(cli: Cli, { limit, of, by }: ListOptions): Promise<void> {
  await cli.inSession(async (session, terminal) => {
    const client = session.client(RevocationServiceClient);
    const names = userNames(session);
    const [target, actor] = [await idOf(session, of), await idOf(session, by)];
    const revocations = await rowsFrom(limit, async (pageSize, pageToken) => {
      const request = { pageSize, pageToken, target, actor, eventId: '' };
      const page = await session.call(client.listRevocations.bind(client), request);
      return { rows: page.revocations, nextPageToken: page.nextPageToken };
    });
    const named = await Promise.all(
      revocations.map(async (one) => ({
        ...one,
        kind: KINDS[one.kind] ?? 'unknown',
        targetName: one.issuer === '' ? await names(one.target) : one.target,
        actorName: await names(one.actor),
      })),
    );
    writeResult(terminal, { revocations: named }, () =>
      named.length === 0
        ? `The log has no ${of === undefined && by === undefined ? '' : 'such '}revocation.`
        : tableOf(
            ['RECEIPT', 'WHEN', 'WHAT', 'OF', 'BY', 'FROM', 'WHY'],
            named.map((one) => [
              String(one.sequence),
              timeText(one.revokeTime),
              one.kind,
              shortText(one.targetName),
              shortText(one.actorName),
              one.network,
              one.reason,
            ]),
            terminal,
          ),
    );
  });
}

/** An id by its first part; a name as it is. */
function shortText(text: string): string {
  return /^[0-9a-f]{8}-[0-9a-f]{4}-/.test(text) ? text.slice(0, 8) : text;
}

async function listReceipts(cli: Cli, limit: number): Promise<void> {
  await cli.inSession(async (session, terminal) => {
    const client = session.client(EvidenceServiceClient);
    const names = userNames(session);
    const receipts = await rowsFrom(limit, async (pageSize, pageToken) => {
      const page = await session.call(client.listReceipts.bind(client), { pageSize, pageToken });
      return { rows: page.receipts, nextPageToken: page.nextPageToken };
    });
    const rows = await Promise.all(
      receipts.map(async ({ sequence, revokeTime, kind, target, actor, reason }) => [
        String(sequence),
        timeText(revokeTime),
        kind.toLowerCase(),
        shortText(await names(target)),
        shortText(await names(actor)),
        reason,
      ]),
    );
    writeResult(terminal, { receipts }, () =>
      rows.length === 0
        ? 'No receipt is closed yet: a receipt closes some seconds after the bound of its revocation.'
        : tableOf(['RECEIPT', 'WHEN', 'WHAT', 'OF', 'BY', 'WHY'], rows, terminal),
    );
  });
}

interface ShowOptions {
  readonly export?: string;
  readonly now?: true;
  readonly epoch?: string;
}

async function showReceipt(
  cli: Cli,
  text: string,
  { export: file, now, epoch = '' }: ShowOptions,
): Promise<void> {
  if (!/^[0-9]{1,19}$/.test(text)) {
    throw new CommandError(`Expected the number of a receipt, got ${JSON.stringify(text)}.`, {
      exitCode: EXIT.usage,
    });
  }
  await cli.inSession(async (session, terminal) => {
    const request = { sequence: BigInt(text), epoch: Buffer.from(epoch, 'base64url') };
    const isAwaited = file !== undefined && now !== true;
    const exported = isAwaited
      ? await exportFinalReceipt(session, terminal, request)
      : await exportReceipt(session, request);
    const { receipt, jwks } = exported;
    if (file !== undefined) {
      await writeFile(file, `${exported.text}\n`);
      await writeFile(`${file}.jwks`, `${jwks}\n`);
    }
    writeResult(terminal, receipt, () => describeReceipt(receipt, terminal));
    if (!receipt.final) {
      note(
        terminal,
        'The evidence is not final yet: it is complete some seconds after the time at "everywhere by".',
      );
    }
    if (file === undefined) return;
    note(
      terminal,
      `Written to ${file}. Verify it anywhere: portcullis receipt verify ${file} --jwks ${file}.jwks`,
    );
  });
}

async function printKeys(cli: Cli): Promise<void> {
  await cli.inSession(async (session, terminal) => {
    const client = session.client(EvidenceServiceClient);
    const { jwks } = await session.call(client.getReceiptKeys.bind(client), {});
    writeResult(terminal, JSON.parse(jwks) as object, () => jwks);
  });
}

async function verifyFile(terminal: Terminal, file: string, jwksFile: string): Promise<void> {
  const [text, jwks] = await Promise.all([file, jwksFile].map(contentOf));
  const receipt: Receipt = await verifyReceipt(readReceipt(text ?? ''), jwks ?? '');
  writeResult(
    terminal,
    { valid: true, ...receipt },
    () => `✓ Signed by ${receipt.iss} with a published key.\n\n${describeReceipt(receipt, terminal)}`,
  );
}

async function contentOf(file: string): Promise<string> {
  return await readFile(file, 'utf8').catch((cause: NodeJS.ErrnoException) => {
    throw new CommandError(`${file} cannot be read: ${cause.message}`, { exitCode: EXIT.usage, cause });
  });
}
