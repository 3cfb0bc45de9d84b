/** `portcullis sessions`. */

import type { Command } from 'commander';
import type { Session as UserSession } from '../../gen/auth/v1/auth_service.js';
import type { Cli } from '../cli.js';
import { findUser, sessionName, sessionsOf } from '../directory.js';
import { tableOf, timeText } from '../tables.js';
import { note, writeResult } from '../terminal.js';

/** How many sessions are listed unless all are asked for. */
const LISTED_DEFAULT = 50;

export function addSessionCommands(program: Command, cli: Cli): void {
  program
    .command('sessions <user>')
    .description("list a user's open sessions, newest first, with the names that revoke takes")
    .option('--all', `list all of them, not only the newest ${LISTED_DEFAULT}`)
    .action((user: string, options: { readonly all?: true }) =>
      listSessions(cli, user, options.all === true),
    );
}

async function listSessions(cli: Cli, username: string, isAll: boolean): Promise<void> {
  await cli.inSession(async (session, terminal) => {
    const user = await findUser(session, username);
    const found: UserSession[] = [];
    let isMore = false;
    for await (const page of sessionsOf(session, user.userId)) {
      found.push(...page);
      isMore = !isAll && found.length > LISTED_DEFAULT;
      if (isMore) break;
    }
    const sessions = (isMore ? found.slice(0, LISTED_DEFAULT) : found).map((one) => ({
      name: sessionName(user.username, one.sessionId),
      ...one,
    }));
    writeResult(terminal, { user: user.username, sessions, isMore }, () =>
      sessions.length === 0
        ? `${user.username} has no open session.`
        : tableOf(
            ['SESSION', 'STARTED', 'LAST USED', 'DEVICE', 'CLIENT', 'NETWORK'],
            sessions.map((one) => [
              one.name,
              timeText(one.createTime),
              timeText(one.lastUseTime),
              one.deviceName,
              one.clientId,
              one.network,
            ]),
            terminal,
          ),
    );
    if (isMore) note(terminal, `These are the newest ${LISTED_DEFAULT}; --all lists all of them.`);
  });
}
