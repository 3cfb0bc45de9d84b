/** `portcullis events`. */

import { setTimeout as sleep } from 'node:timers/promises';
import { type ClientReadableStream, Metadata, status } from '@grpc/grpc-js';
import { errorOf } from '@portcullis/guard/client';
import type { Command } from 'commander';
import {
  type SecurityEvent,
  type SecurityEventFilter,
  SecurityEventType,
  SecurityServiceClient,
  type WatchSecurityEventsResponse,
} from '../../gen/auth/v1/security_service.js';
import type { Cli } from '../cli.js';
import { findUser, rowsFrom, userNames } from '../directory.js';
import { CommandError, EXIT } from '../failures.js';
import { listOf, rowsOf } from '../options.js';
import type { Session } from '../session.js';
import { timeText } from '../tables.js';
import { interruptOf, note, type Terminal, writeLine } from '../terminal.js';

/** Pause before a lost connection is made again, in milliseconds. */
const RECONNECT_MS = 1000;

const PREFIX = 'SECURITY_EVENT_TYPE_';

export function addEventCommands(program: Command, cli: Cli): void {
  program
    .command('events')
    .description('list security events, or follow them')
    .option('--follow', 'print events as they are recorded, until Ctrl-C')
    .option('--user <name>', 'only events about this user')
    .option('--subject <id>', 'only events about this session, client, token, key, service or network')
    .option(
      '--type <names>',
      'only events of these types, separated by commas, such as login-failed',
      listOf,
      [],
    )
    .option('--limit <number>', 'at most so many', rowsOf, 50)
    .action((options: EventOptions) => events(cli, options));
}

interface EventOptions {
  readonly follow?: true;
  readonly user?: string;
  readonly subject?: string;
  readonly type: readonly string[];
  readonly limit: number;
}

async function events(cli: Cli, options: EventOptions): Promise<void> {
  const types = options.type.map(typeOf);
  if (options.user !== undefined && options.subject !== undefined) {
    throw new CommandError('Name --user or --subject, not both.', { exitCode: EXIT.usage });
  }
  await cli.inSession(async (session, terminal) => {
    const subject =
      options.user === undefined ? (options.subject ?? '') : (await findUser(session, options.user)).userId;
    const filter = { types, subject, beginTime: undefined, endTime: undefined };
    const names = userNames(session);
    const write = async (event: SecurityEvent): Promise<void> => {
      const line = await lineOf(event, names);
      writeLine(terminal, { ...event, type: nameOf(event.type) }, () => line);
    };
    const client = session.client(SecurityServiceClient);
    if (options.follow === true) return await follow(session, terminal, client, filter, write);
    const found = await rowsFrom(options.limit, async (pageSize, pageToken) => {
      const request = { pageSize, pageToken, filter };
      const page = await session.call(client.listSecurityEvents.bind(client), request);
      return { rows: page.events, nextPageToken: page.nextPageToken };
    });
    for (const event of found.reverse()) await write(event);
  });
}

/** Follows the events across the expiry of tokens and lost connections, without a gap. */
async function follow(
  session: Session,
  terminal: Terminal,
  client: SecurityServiceClient,
  filter: SecurityEventFilter,
  write: (event: SecurityEvent) => Promise<void>,
): Promise<void> {
  const interrupt = interruptOf(terminal);
  let resumeToken = '';
  let isRenewalDue = false;
  while (!interrupt.aborted) {
    if (isRenewalDue) await renewOrExplain(session);
    isRenewalDue = false;
    const metadata = new Metadata();
    metadata.set('authorization', `Bearer ${await session.token()}`);
    const stream: ClientReadableStream<WatchSecurityEventsResponse> = client.watchSecurityEvents(
      { filter, resumeToken },
      metadata,
    );
    const stop = (): void => stream.cancel();
    interrupt.addEventListener('abort', stop, { once: true });
    try {
      for await (const { event, resumeToken: next } of stream as AsyncIterable<WatchSecurityEventsResponse>) {
        resumeToken = next;
        if (event !== undefined) await write(event);
      }
    } catch (error) {
      if (interrupt.aborted) return;
      const { code, reason } = errorOf(error);
      if (reason === 'TOKEN_REVOKED') throw revoked();
      // A long call ends with its token. The next one goes on after the last event.
      if (reason === 'TOKEN_EXPIRED') isRenewalDue = true;
      else if (code === status.UNAVAILABLE || code === status.CANCELLED) {
        note(terminal, `The connection was lost (${reason || 'UNAVAILABLE'}); connecting again …`);
        await sleep(RECONNECT_MS, undefined, { signal: interrupt }).catch(() => undefined);
      } else throw error;
    } finally {
      interrupt.removeEventListener('abort', stop);
    }
  }
}

async function renewOrExplain(session: Session): Promise<void> {
  await session.renew().catch((error: unknown) => {
    if (errorOf(error).reason === 'REFRESH_INVALID') throw revoked();
    throw error;
  });
}

function revoked(): CommandError {
  return new CommandError(
    `Your own session was revoked; noticed at ${timeText(new Date())}. What was printed is complete until then. Log in again with portcullis login.`,
    { exitCode: EXIT.loggedOut },
  );
}

function typeOf(name: string): SecurityEventType {
  const key = PREFIX + name.toUpperCase().replaceAll('-', '_');
  const found = Object.entries(SecurityEventType).find(([candidate]) => candidate === key)?.[1];
  if (typeof found !== 'number') {
    throw new CommandError(`There is no type ${name} of events.`, { exitCode: EXIT.usage });
  }
  return found as SecurityEventType;
}

function nameOf(type: SecurityEventType): string {
  const key =
    Object.entries(SecurityEventType).find(([, value]) => value === type)?.[0] ?? `${PREFIX}UNKNOWN`;
  return key.slice(PREFIX.length).toLowerCase().replaceAll('_', '-');
}

/** One event, in one line. */
async function lineOf(event: SecurityEvent, names: (id: string) => Promise<string>): Promise<string> {
  const { subject, actor, network, reason, details } = event;
  const about = await Promise.all(
    [subject?.userId, subject?.clientId, subject?.keyId, subject?.service, subject?.sessionId?.slice(0, 8)]
      .filter((text) => text !== undefined && text !== '')
      .map((text) => names(text ?? '')),
  );
  return [
    timeText(event.eventTime),
    nameOf(event.type),
    about.join(' '),
    ...(actor === '' ? [] : [`by ${await names(actor)}`]),
    ...(network === '' ? [] : [`from ${network}`]),
    ...(reason === '' ? [] : [`(${reason})`]),
    ...Object.entries(details).map(([name, value]) => `${name}=${value}`),
  ]
    .filter((part) => part !== '')
    .join('  ')
    .replaceAll('\n', ' ');
}
