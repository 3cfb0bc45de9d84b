/** `portcullis revoke`. */

import type { Command } from 'commander';
import { KeyServiceClient } from '../../gen/auth/v1/key_service.js';
import {
  type ForeignTarget,
  RevocationServiceClient,
  type RevokeRequest,
  RevokeWait,
  type SessionFilter,
} from '../../gen/portcullis/revocation/v1/revocation.js';
import type { Cli } from '../cli.js';
import { findSessionId, findUser, rowsFrom, sessionName } from '../directory.js';
import { boundText, followEnforcement, noteRevoked } from '../enforcement.js';
import { CommandError, EXIT } from '../failures.js';
import { nonEmpty, timeOf } from '../options.js';
import type { Session } from '../session.js';
import { tableOf, timeText } from '../tables.js';
import { note, readInput, type Terminal, writeResult } from '../terminal.js';

export function addRevokeCommand(program: Command, cli: Cli): void {
  program
    .command('revoke')
    .description('end sessions and revoke tokens, at every instance')
    .option('--user <names...>', 'all sessions and tokens of users', each)
    .option('--session <names...>', 'sessions, as portcullis sessions prints them', each)
    .option(
      '--token <->',
      'the tokens on standard input, one on each line: an access token, or a refresh token with its session',
    )
    .option('--client <id>', 'all tokens whose chain includes a client', nonEmpty)
    .option('--key <kid>', 'all tokens that a key signed; the start of the kid is enough', nonEmpty)
    .option('--role <name>', 'all open sessions of users with a role', nonEmpty)
    .option('--login-client <id>', 'all open sessions whose users logged in through a client', nonEmpty)
    .option('--logged-in-before <time>', 'all open sessions that began before a time, as ISO 8601', timeOf)
    .option(
      '--network <address>',
      'all open sessions whose users logged in from an IPv4 address, or a /64',
      nonEmpty,
    )
    .option('--foreign <what>', 'of another issuer: ISSUER sub=…, jti=…, sid=…, or /claim=…', nonEmpty)
    .option('--reason <text>', 'why, for the receipt and the security event')
    .option('--dry-run', 'print what would be revoked, and revoke nothing')
    .option('--wait', 'print a line for each instance as it confirms')
    .action((options: RevokeOptions) => revoke(cli, options));
}

interface RevokeOptions {
  readonly user?: readonly string[];
  readonly session?: readonly string[];
  readonly token?: string;
  readonly client?: string;
  readonly key?: string;
  readonly role?: string;
  readonly loginClient?: string;
  readonly loggedInBefore?: Date;
  readonly network?: string;
  readonly foreign?: string;
  readonly reason?: string;
  readonly dryRun?: true;
  readonly wait?: true;
}

const TARGETS = ['user', 'session', 'token', 'client', 'key', 'foreign'] as const;

/** Most targets of one call. */
const TARGETS_MAX = 1000;

/** One of the names that an option takes. */
function each(text: string, before: readonly string[] = []): readonly string[] {
  return [...before, nonEmpty(text)];
}

/** A session that a dry run has found. */
interface NamedSession {
  readonly name: string;
  readonly createTime?: Date | undefined;
  readonly clientId: string;
}

/** A target, and how to name it. */
interface Named {
  readonly name: string;
  readonly target: NonNullable<RevokeRequest['target']>;
}

/** Conditions on sessions: those of a user, or of all users, for which all of them hold. */
const CONDITIONS = ['role', 'loginClient', 'loggedInBefore', 'network'] as const;

/** What is revoked: one thing, or the sessions that match a filter. */
type Kind = (typeof TARGETS)[number] | 'filter';

/** @throws CommandError when that is not exactly one */
function kindOf(options: RevokeOptions): Kind {
  const chosen = TARGETS.filter((name) => options[name] !== undefined);
  const [first] = chosen;
  const isFiltered = CONDITIONS.some((name) => options[name] !== undefined);
  if (isFiltered && options.user !== undefined && options.user.length > 1) {
    throw new CommandError('Conditions on sessions go with one --user at most.', { exitCode: EXIT.usage });
  }
  if (isFiltered && (first === undefined || (first === 'user' && chosen.length === 1))) return 'filter';
  if (first !== undefined && chosen.length === 1 && !isFiltered) return first;
  throw new CommandError(
    `Name exactly one of ${TARGETS.map((name) => `--${name}`).join(', ')}, or conditions on sessions: ` +
      '--role, --login-client, --logged-in-before, --network, and with them --user.',
    { exitCode: EXIT.usage },
  );
}

async function revoke(cli: Cli, options: RevokeOptions): Promise<void> {
  const kind = kindOf(options);
  if (kind === 'token' && options.token !== '-') {
    throw new CommandError('A token is read from standard input only: --token -', { exitCode: EXIT.usage });
  }
  await cli.inSession(async (session, terminal) => {
    if (options.dryRun === true) return await dryRun(session, terminal, kind, options);
    const reason = options.reason ?? '';
    const revocations = session.client(RevocationServiceClient);
    if (kind === 'filter') {
      const done = await session.call(revocations.revokeSessions.bind(revocations), {
        ...NO_FILTER_RUN,
        filter: await filterOf(session, options, options.user?.[0]),
        reason,
      });
      return await tell(session, terminal, options, done, `Ended ${done.sessionCount} sessions.`);
    }
    const all = await targetsOf(session, terminal, kind, options);
    const [first] = all;
    if (first === undefined || all.length > 1) return await revokeAll(session, terminal, options, all);
    const { target } = first;
    const done = await session.call(revocations.revoke.bind(revocations), { ...NO_TARGET, target, reason });
    const unknown = done.targetKnown
      ? ''
      : ' Auth keeps no record of it: it takes effect if the identifier is right.';
    await tell(session, terminal, options, done, `Revoked.${unknown}`);
  });
}

/** Revokes several targets in one call. @throws CommandError when some of them failed; the others are revoked */
async function revokeAll(
  session: Session,
  terminal: Terminal,
  options: RevokeOptions,
  all: readonly Named[],
): Promise<void> {
  const revocations = session.client(RevocationServiceClient);
  const done = await session.call(revocations.revoke.bind(revocations), {
    ...NO_TARGET,
    target: undefined,
    targets: all.map(({ target }) => ({ target })),
    reason: options.reason ?? '',
  });
  const results = done.results.map((result, index) => ({ name: all[index]?.name ?? '', ...result }));
  const failed = results.filter(({ errorReason }) => errorReason !== '');
  // Before the wait, which may end early.
  for (const { name, errorReason, errorMessage } of failed) {
    note(terminal, `${name}: ${errorReason}: ${errorMessage}`);
  }
  const told = { ...done, results };
  await tell(
    session,
    terminal,
    options,
    told,
    `Revoked ${results.length - failed.length} of ${results.length}.`,
  );
  if (failed.length > 0) throw new CommandError(`Not revoked: ${failed.map(({ name }) => name).join(', ')}.`);
}

/** Names without those that are there twice. @throws CommandError when they are too many for one call */
function distinct<T>(all: readonly T[]): readonly T[] {
  const names = [...new Set(all)];
  if (names.length <= TARGETS_MAX) return names;
  throw new CommandError(`At most ${TARGETS_MAX} targets at once, got ${names.length}.`, {
    exitCode: EXIT.usage,
  });
}

async function tell(
  session: Session,
  terminal: Terminal,
  { wait }: RevokeOptions,
  done: { readonly sequence: bigint; readonly enforcedEverywhereBy: Date | undefined },
  text: string,
): Promise<void> {
  const { sequence, enforcedEverywhereBy } = done;
  writeResult(terminal, { receipt: sequence, ...done }, () =>
    sequence === 0n ? `${text} ${boundText(undefined)}` : `${text} Receipt ${sequence}.`,
  );
  if (sequence === 0n) return;
  noteRevoked(terminal, { sequence, enforcedEverywhereBy });
  if (wait === true) await followEnforcement(session, terminal, { sequence, enforcedEverywhereBy });
}

async function dryRun(
  session: Session,
  terminal: Terminal,
  kind: Kind,
  options: RevokeOptions,
): Promise<void> {
  const revocations = session.client(RevocationServiceClient);
  if (kind === 'session') {
    const sessions: { readonly name: string; readonly sessionId: string }[] = [];
    for (const name of distinct(options.session ?? []))
      sessions.push({ name, sessionId: await findSessionId(session, name) });
    return writeResult(terminal, { sessionCount: BigInt(sessions.length), sessions }, () =>
      sessions.map(({ name }) => `Would end session ${name}.`).join('\n'),
    );
  }
  if (kind === 'key' || kind === 'token') {
    const what =
      kind === 'key'
        ? `all tokens signed by key ${await keyIdOf(session, options.key ?? '')}`
        : tokensText((await tokensOf(terminal)).length);
    return writeResult(terminal, { what }, () => `Would revoke ${what}.`);
  }
  if (kind === 'foreign') {
    const target = { $case: 'foreign', value: foreignOf(options.foreign ?? '') } as const;
    if (target.value.what?.$case === 'claim') {
      await session.call(revocations.revoke.bind(revocations), {
        ...NO_TARGET,
        target,
        reason: '',
        dryRun: true,
      });
    }
    return writeResult(
      terminal,
      { foreign: options.foreign },
      () => `Would revoke ${options.foreign}; auth keeps no record to count.`,
    );
  }
  // A filter names one user.
  let sessionCount = 0n;
  const named: NamedSession[] = [];
  for (const user of kind === 'user' ? distinct(options.user ?? []) : [options.user?.[0]]) {
    const sought = await filterOf(session, options, user);
    const filter = kind === 'client' ? { ...sought, clientId: options.client ?? '' } : sought;
    const request = { ...NO_FILTER_RUN, filter, reason: '', dryRun: true };
    const found = await session.call(revocations.revokeSessions.bind(revocations), request);
    sessionCount += found.sessionCount;
    named.push(...found.sessions.map((one) => ({ name: sessionName(one.username, one.sessionId), ...one })));
  }
  writeResult(terminal, { sessionCount, sessions: named }, () =>
    [
      `Would end ${sessionCount} sessions${kind === 'client' ? ', and revoke every token whose chain includes the client' : ''}.`,
      ...(named.length === 0
        ? []
        : [
            tableOf(
              ['SESSION', 'STARTED', 'CLIENT'],
              named.map((one) => [one.name, timeText(one.createTime), one.clientId]),
              terminal,
            ),
          ]),
    ].join('\n'),
  );
}

async function targetsOf(
  session: Session,
  terminal: Terminal,
  kind: (typeof TARGETS)[number],
  options: RevokeOptions,
): Promise<readonly Named[]> {
  const all: Named[] = [];
  switch (kind) {
    case 'user':
      for (const name of distinct(options.user ?? [])) {
        all.push({ name, target: { $case: 'userId', value: (await findUser(session, name)).userId } });
      }
      return all;
    case 'session':
      for (const name of distinct(options.session ?? [])) {
        all.push({ name, target: { $case: 'sessionId', value: await findSessionId(session, name) } });
      }
      return all;
    case 'token':
      return (await tokensOf(terminal)).map(({ line, token }) => ({
        name: `line ${line}`,
        target: { $case: 'token', value: token },
      }));
    case 'client':
      return [{ name: '', target: { $case: 'clientId', value: options.client ?? '' } }];
    case 'key':
      return [{ name: '', target: { $case: 'keyId', value: await keyIdOf(session, options.key ?? '') } }];
    case 'foreign':
      return [{ name: '', target: { $case: 'foreign', value: foreignOf(options.foreign ?? '') } }];
  }
}

/** A token, and in which line it was first found. */
interface FoundToken {
  readonly line: number;
  readonly token: string;
}

/** The tokens on standard input, one on each line. @throws CommandError when there is none, or too many */
async function tokensOf(terminal: Terminal): Promise<readonly FoundToken[]> {
  const lines = (await readInput(terminal)).split('\n').map((line) => line.trim());
  const tokens = distinct(lines.filter((line) => line !== ''));
  if (tokens.length > 0) return tokens.map((token) => ({ token, line: lines.indexOf(token) + 1 }));
  throw new CommandError('There is no token on standard input.', { exitCode: EXIT.usage });
}

function tokensText(count: number): string {
  return count === 1 ? 'the token' : `${count} tokens`;
}

/** The sessions for which the conditions hold. */
async function filterOf(
  session: Session,
  { role = '', loginClient = '', loggedInBefore, network = '' }: RevokeOptions,
  user: string | undefined,
): Promise<SessionFilter> {
  return {
    role,
    clientId: loginClient,
    loggedInBeforeTime: loggedInBefore,
    network,
    userId: user === undefined ? '' : (await findUser(session, user)).userId,
  };
}

/** The `kid` that begins like this. */
async function keyIdOf(session: Session, start: string): Promise<string> {
  const keys = session.client(KeyServiceClient);
  const all = await rowsFrom(Number.POSITIVE_INFINITY, async (pageSize, pageToken) => {
    const page = await session.call(keys.listKeys.bind(keys), { pageSize, pageToken });
    return { rows: page.keys, nextPageToken: page.nextPageToken };
  });
  const found = all.filter(({ kid }) => kid.startsWith(start));
  const [key] = found;
  if (key !== undefined && found.length === 1) return key.kid;
  throw new CommandError(
    found.length === 0 ? `There is no key ${start}.` : `Several keys begin with ${start}.`,
  );
}

function foreignOf(text: string): ForeignTarget {
  const [, issuer = '', claim = '', value = ''] = /^(\S+)\s+([^=\s]+)=(.+)$/s.exec(text) ?? [];
  switch (claim) {
    case 'sub':
      return { issuer, what: { $case: 'subject', value } };
    case 'jti':
      return { issuer, what: { $case: 'tokenId', value } };
    case 'sid':
      return { issuer, what: { $case: 'sessionId', value } };
    default:
  }
  if (claim.startsWith('/')) return { issuer, what: { $case: 'claim', value: { claim, value } } };
  throw new CommandError(
    'Expected --foreign "ISSUER sub=…", with sub, jti, sid or the JSON Pointer of a claim such as /tenant.',
    { exitCode: EXIT.usage },
  );
}

const NO_TARGET = {
  wait: RevokeWait.REVOKE_WAIT_NONE,
  targets: [],
  fences: [],
  dryRun: false,
};

const NO_FILTER_RUN = { wait: RevokeWait.REVOKE_WAIT_NONE, dryRun: false, fences: [] };
