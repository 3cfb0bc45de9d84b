/** `portcullis client`. */

import { createHash, createPublicKey, randomUUID } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import type { Command } from 'commander';
import {
  type ClientCredential,
  ClientServiceClient,
  ClientState,
  type RegisteredClient,
} from '../../gen/auth/v1/client_service.js';
import type { Cli } from '../cli.js';
import { PAGE_SIZE } from '../directory.js';
import { noteRevoked } from '../enforcement.js';
import { CommandError, EXIT } from '../failures.js';
import type { Session } from '../session.js';
import { type Cell, tableOf, timeText } from '../tables.js';
import { note, writeResult } from '../terminal.js';

interface Reason {
  readonly reason?: string;
}

export function addClientCommands(program: Command, cli: Cli): void {
  const client = program.command('client').description('clients: the services that get tokens of their own');
  client
    .command('list')
    .description('list the clients by id')
    .action(() => listClients(cli));
  client
    .command('show <client>')
    .description('print a client with its keys and secrets')
    .action((id: string) => showClient(cli, id));
  client
    .command('add-key <client> <file>')
    .description('give a client another public key (PEM), so that a new one can replace the old one')
    .action((id: string, file: string) => addKey(cli, id, file));
  client
    .command('remove-key <client> <credential>')
    .description('remove a key or a secret, by the id that show prints')
    .option('--revoke', 'it may have leaked: revoke every token of the client, too')
    .option('--reason <text>', 'why, for the security event')
    .action((id: string, credential: string, options: Reason & { readonly revoke?: true }) =>
      removeKey(cli, id, credential, options),
    );
  client
    .command('disable <client>')
    .description('keep a client from getting tokens, and revoke those that it has')
    .option('--reason <text>', 'why, for the receipt and the security event')
    .action((id: string, options: Reason) => disableClient(cli, id, options));
  client
    .command('enable <client>')
    .description('let a disabled client get tokens again')
    .action((id: string) => enableClient(cli, id));
  client
    .command('delete <client>')
    .description('delete a client, and revoke its tokens')
    .option('--reason <text>', 'why, for the receipt and the security event')
    .option('--yes', 'do not ask: it cannot be undone')
    .action((id: string, options: Reason & { readonly yes?: true }) => deleteClient(cli, id, options));
}

/** All clients, by id. */
async function clientsOf(session: Session): Promise<readonly RegisteredClient[]> {
  const clients = session.client(ClientServiceClient);
  const found: RegisteredClient[] = [];
  let pageToken = '';
  do {
    const page = await session.call(clients.listClients.bind(clients), { pageSize: PAGE_SIZE, pageToken });
    found.push(...page.clients);
    pageToken = page.nextPageToken;
  } while (pageToken !== '');
  return found;
}

async function listClients(cli: Cli): Promise<void> {
  await cli.inSession(async (session, terminal) => {
    const clients = await clientsOf(session);
    writeResult(terminal, { clients }, () =>
      tableOf(
        ['CLIENT', 'STATE', 'KEYS', 'SCOPES', 'CREATED'],
        clients.map((one) => [
          one.clientId,
          stateCell(one),
          String(one.credentials.length),
          one.scopes.join(' '),
          timeText(one.createTime),
        ]),
        terminal,
      ),
    );
  });
}

function stateCell({ state }: RegisteredClient): Cell {
  return state === ClientState.CLIENT_STATE_DISABLED ? { text: 'disabled', tone: 'warning' } : 'active';
}

async function showClient(cli: Cli, clientId: string): Promise<void> {
  await cli.inSession(async (session, terminal) => {
    const clients = session.client(ClientServiceClient);
    const { client } = await session.call(clients.getClient.bind(clients), { clientId });
    if (client === undefined) throw new CommandError(`There is no client ${clientId}.`);
    writeResult(terminal, client, () =>
      [
        `client     ${client.clientId}`,
        `state      ${client.state === ClientState.CLIENT_STATE_DISABLED ? 'disabled' : 'active'}`,
        `audiences  ${client.audiences.join(', ')}`,
        `scopes     ${client.scopes.join(', ')}`,
        `exchange   ${client.exchangeAudiences.join(', ')}`,
        '',
        tableOf(
          ['CREDENTIAL', 'KIND', 'FINGERPRINT', 'ADDED'],
          client.credentials.map((one) => [
            one.credentialId,
            one.publicKeyPem === '' ? 'secret' : 'key',
            fingerprintOf(one),
            timeText(one.createTime),
          ]),
          terminal,
        ),
      ].join('\n'),
    );
  });
}

/** SHA-256 of the key's DER, as other tools print it. */
function fingerprintOf({ publicKeyPem }: ClientCredential): string {
  if (publicKeyPem === '') return '';
  const der = createPublicKey(publicKeyPem).export({ type: 'spki', format: 'der' });
  return `SHA256:${createHash('sha256').update(der).digest('base64url').slice(0, 16)}…`;
}

async function addKey(cli: Cli, clientId: string, file: string): Promise<void> {
  const publicKeyPem = await readFile(file, 'utf8').catch((cause: NodeJS.ErrnoException) => {
    throw new CommandError(`${file} cannot be read: ${cause.message}`, { exitCode: EXIT.usage, cause });
  });
  if (publicKeyPem.includes('PRIVATE KEY')) {
    throw new CommandError(`${file} is a private key: name the file with the public one.`, {
      exitCode: EXIT.usage,
    });
  }
  await cli.inSession(async (session, terminal) => {
    const clients = session.client(ClientServiceClient);
    const added = await session.call(clients.addClientCredential.bind(clients), {
      clientId,
      credential: { $case: 'publicKeyPem', value: publicKeyPem },
      requestId: randomUUID(),
    });
    writeResult(
      terminal,
      { clientId, credentialId: added.credentialId },
      () => `Added key ${added.credentialId} to ${clientId}.`,
    );
  });
}

async function removeKey(
  cli: Cli,
  clientId: string,
  credentialId: string,
  { reason = '', revoke = false }: Reason & { readonly revoke?: boolean },
): Promise<void> {
  await cli.inSession(async (session, terminal) => {
    const clients = session.client(ClientServiceClient);
    const done = await session.call(clients.removeClientCredential.bind(clients), {
      ...{ clientId, credentialId, reason },
      revokeTokens: revoke,
      requestId: randomUUID(),
    });
    writeResult(
      terminal,
      { clientId, credentialId, receipt: done.sequence },
      () => `Removed ${credentialId} from ${clientId}.`,
    );
    if (done.sequence !== 0n) noteRevoked(terminal, done);
    else note(terminal, 'Tokens that the client got with it stay valid until they expire.');
  });
}

async function disableClient(cli: Cli, clientId: string, { reason = '' }: Reason): Promise<void> {
  await cli.inSession(async (session, terminal) => {
    const clients = session.client(ClientServiceClient);
    const request = { clientId, reason, requestId: randomUUID() };
    const done = await session.call(clients.disableClient.bind(clients), request);
    writeResult(
      terminal,
      { receipt: done.sequence, ...done },
      () => `Disabled ${clientId}. Receipt ${done.sequence}.`,
    );
    noteRevoked(terminal, done);
  });
}

async function enableClient(cli: Cli, clientId: string): Promise<void> {
  await cli.inSession(async (session, terminal) => {
    const clients = session.client(ClientServiceClient);
    await session.call(clients.enableClient.bind(clients), { clientId, requestId: randomUUID() });
    writeResult(
      terminal,
      { clientId },
      () => `${clientId} may get tokens again. Revoked tokens stay revoked.`,
    );
  });
}

async function deleteClient(
  cli: Cli,
  clientId: string,
  { reason = '', yes }: Reason & { readonly yes?: true },
): Promise<void> {
  if (yes !== true) {
    throw new CommandError(`Deleting ${clientId} cannot be undone: repeat the command with --yes.`, {
      exitCode: EXIT.usage,
    });
  }
  await cli.inSession(async (session, terminal) => {
    const clients = session.client(ClientServiceClient);
    const request = { clientId, reason, requestId: randomUUID() };
    const done = await session.call(clients.deleteClient.bind(clients), request);
    writeResult(
      terminal,
      { receipt: done.sequence, ...done },
      () => `Deleted ${clientId}. Receipt ${done.sequence}.`,
    );
    noteRevoked(terminal, done);
  });
}
