/** `portcullis user`. */

import { randomUUID } from 'node:crypto';
import type { Command } from 'commander';
import { type User, UserServiceClient, UserState } from '../../gen/auth/v1/user_service.js';
import { RevocationServiceClient, RevokeWait } from '../../gen/portcullis/revocation/v1/revocation.js';
import type { Cli } from '../cli.js';
import { findUser, PAGE_SIZE } from '../directory.js';
import { followEnforcement, noteRevoked } from '../enforcement.js';
import { CommandError, EXIT } from '../failures.js';
import { type Cell, tableOf, timeText } from '../tables.js';
import { note, writeResult } from '../terminal.js';

interface Reason {
  readonly reason?: string;
}

export function addUserCommands(program: Command, cli: Cli): void {
  const user = program
    .command('user')
    .description('users: list, show, unlock, reset the password, delete, log out');
  user
    .command('list')
    .description('list the users by name')
    .action(() => listUsers(cli));
  user
    .command('show <user>')
    .description('print a user')
    .action((name: string) => showUser(cli, name));
  user
    .command('unlock <user>')
    .description('clear the failed logins that are counted for the name')
    .action((name: string) => unlockUser(cli, name));
  user
    .command('reset-password <user>')
    .description('print a reset token, with which the user sets a new password, once')
    .option('--reason <text>', 'why, for the security event')
    .action((name: string, options: Reason) => resetPassword(cli, name, options));
  user
    .command('disable <user>')
    .description('keep a user from logging in, and end all sessions')
    .option('--reason <text>', 'why, for the receipt and the security event')
    .action((name: string, options: Reason) => disableUser(cli, name, options));
  user
    .command('enable <user>')
    .description('let a disabled user log in again')
    .action((name: string) => enableUser(cli, name));
  user
    .command('delete <user>')
    .description('delete a user for good, and end all sessions')
    .option('--reason <text>', 'why, for the receipt and the security event')
    .option('--yes', 'do not ask: it cannot be undone')
    .action((name: string, options: Reason & { readonly yes?: true }) => deleteUser(cli, name, options));
  user
    .command('logout <user>')
    .description('end all sessions of a user, everywhere')
    .option('--reason <text>', 'why, for the receipt and the security event')
    .option('--wait', 'print a line for each instance as it confirms')
    .action((name: string, options: Reason & { readonly wait?: true }) => logoutUser(cli, name, options));
}

async function listUsers(cli: Cli): Promise<void> {
  await cli.inSession(async (session, terminal) => {
    const client = session.client(UserServiceClient);
    const users: User[] = [];
    let pageToken = '';
    do {
      const page = await session.call(client.listUsers.bind(client), { pageSize: PAGE_SIZE, pageToken });
      users.push(...page.users);
      pageToken = page.nextPageToken;
    } while (pageToken !== '');
    writeResult(terminal, { users: users.map(plainUser) }, () =>
      tableOf(
        ['USER', 'ROLES', 'STATE', 'CREATED'],
        users.map((one) => [one.username, one.roles.join(', '), stateCell(one), timeText(one.createTime)]),
        terminal,
      ),
    );
  });
}

function stateCell({ state }: User): Cell {
  return state === UserState.USER_STATE_DISABLED ? { text: 'disabled', tone: 'warning' } : 'active';
}

function plainUser(user: User): object {
  return { ...user, state: user.state === UserState.USER_STATE_DISABLED ? 'disabled' : 'active' };
}

async function showUser(cli: Cli, name: string): Promise<void> {
  await cli.inSession(async (session, terminal) => {
    const user = await findUser(session, name);
    writeResult(terminal, plainUser(user), () =>
      [
        `user     ${user.username}`,
        `id       ${user.userId}`,
        `roles    ${user.roles.join(', ')}`,
        `state    ${user.state === UserState.USER_STATE_DISABLED ? 'disabled' : 'active'}`,
        `created  ${timeText(user.createTime)}`,
      ].join('\n'),
    );
  });
}

async function unlockUser(cli: Cli, name: string): Promise<void> {
  await cli.inSession(async (session, terminal) => {
    const { userId, username } = await findUser(session, name);
    const client = session.client(UserServiceClient);
    await session.call(client.unlockUser.bind(client), { userId, requestId: randomUUID() });
    writeResult(terminal, { user: username }, () => `${username} can log in from new networks again.`);
  });
}

async function resetPassword(cli: Cli, name: string, { reason = '' }: Reason): Promise<void> {
  await cli.inSession(async (session, terminal) => {
    const { userId, username } = await findUser(session, name);
    const client = session.client(UserServiceClient);
    const request = { userId, reason, requestId: randomUUID() };
    const reset = await session.call(client.resetPassword.bind(client), request);
    writeResult(terminal, { user: username, ...reset }, () => reset.resetToken);
    note(
      terminal,
      `${username} sets a new password with it, once, until ${timeText(reset.expireTime)}. Whoever has it can.`,
    );
  });
}

async function disableUser(cli: Cli, name: string, { reason = '' }: Reason): Promise<void> {
  await cli.inSession(async (session, terminal) => {
    const { userId, username } = await findUser(session, name);
    const client = session.client(UserServiceClient);
    const done = await session.call(client.disableUser.bind(client), {
      userId,
      reason,
      requestId: randomUUID(),
    });
    writeResult(
      terminal,
      { receipt: done.sequence, ...done },
      () => `Disabled ${username}. Receipt ${done.sequence}.`,
    );
    noteRevoked(terminal, done);
  });
}

async function enableUser(cli: Cli, name: string): Promise<void> {
  await cli.inSession(async (session, terminal) => {
    const { userId, username } = await findUser(session, name);
    const client = session.client(UserServiceClient);
    await session.call(client.enableUser.bind(client), { userId, requestId: randomUUID() });
    writeResult(
      terminal,
      { user: username },
      () => `${username} may log in again. Ended sessions stay ended.`,
    );
  });
}

async function deleteUser(
  cli: Cli,
  name: string,
  { reason = '', yes }: Reason & { readonly yes?: true },
): Promise<void> {
  if (yes !== true) {
    throw new CommandError(`Deleting ${name} cannot be undone: repeat the command with --yes.`, {
      exitCode: EXIT.usage,
    });
  }
  await cli.inSession(async (session, terminal) => {
    const { userId, username } = await findUser(session, name);
    const client = session.client(UserServiceClient);
    const done = await session.call(client.deleteUser.bind(client), {
      userId,
      reason,
      requestId: randomUUID(),
    });
    writeResult(
      terminal,
      { receipt: done.sequence, ...done },
      () => `Deleted ${username}. Receipt ${done.sequence}.`,
    );
    noteRevoked(terminal, done);
  });
}

async function logoutUser(
  cli: Cli,
  name: string,
  { reason = '', wait }: Reason & { readonly wait?: true },
): Promise<void> {
  await cli.inSession(async (session, terminal) => {
    const { userId, username } = await findUser(session, name);
    const client = session.client(RevocationServiceClient);
    const done = await session.call(client.revoke.bind(client), {
      target: { $case: 'userId', value: userId },
      reason,
      wait: RevokeWait.REVOKE_WAIT_NONE,
      targets: [],
      fences: [],
      dryRun: false,
    });
    writeResult(
      terminal,
      { receipt: done.sequence, ...done },
      () => `Logged ${username} out everywhere. Receipt ${done.sequence}.`,
    );
    noteRevoked(terminal, done);
    if (wait === true) await followEnforcement(session, terminal, done);
  });
}
