/** Users, sessions and instances by the names that people use for them. */

import { errorOf } from '@portcullis/guard/client';
import type { Session as UserSession } from '../gen/auth/v1/auth_service.js';
import { type User, UserServiceClient } from '../gen/auth/v1/user_service.js';
import { CommandError } from './failures.js';
import type { Session } from './session.js';

/** How many items a page of a list has. */
export const PAGE_SIZE = 200;

/** How many digits of a session's id its short name has. */
const SHORT_ID_LENGTH = 8;

const UUID = /^[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}$/i;

/**
 * A user by name, or by id.
 *
 * @throws CommandError when there is none
 */
export async function findUser(session: Session, nameOrId: string): Promise<User> {
  const users = session.client(UserServiceClient);
  const request = UUID.test(nameOrId)
    ? { userId: nameOrId, username: '' }
    : { userId: '', username: nameOrId };
  try {
    const { user } = await session.call(users.getUser.bind(users), request);
    if (user !== undefined) return user;
  } catch (error) {
    if (errorOf(error).reason !== 'NOT_FOUND') throw error;
  }
  throw new CommandError(`There is no user ${nameOrId}.`);
}

/** One page of a list. */
interface Page<Row> {
  readonly rows: readonly Row[];
  /** Empty after the last page. */
  readonly nextPageToken: string;
}

/** The first rows of a list, which auth gives page by page. */
export async function rowsFrom<Row>(
  limit: number,
  read: (pageSize: number, pageToken: string) => Promise<Page<Row>>,
): Promise<Row[]> {
  const found: Row[] = [];
  let pageToken = '';
  do {
    const page = await read(Math.min(limit - found.length, PAGE_SIZE), pageToken);
    found.push(...page.rows);
    pageToken = page.nextPageToken;
  } while (pageToken !== '' && found.length < limit);
  return found;
}

/** The open sessions of a user, newest first, page by page. */
export async function* sessionsOf(session: Session, userId: string): AsyncGenerator<readonly UserSession[]> {
  const users = session.client(UserServiceClient);
  let pageToken = '';
  do {
    const page = await session.call(users.listUserSessions.bind(users), {
      userId,
      pageSize: PAGE_SIZE,
      pageToken,
    });
    yield page.sessions;
    pageToken = page.nextPageToken;
  } while (pageToken !== '');
}

/** The short name of a session, which `revoke --session` takes. */
export function sessionName(username: string, sessionId: string): string {
  return `${username}/${sessionId.slice(0, SHORT_ID_LENGTH)}`;
}

/**
 * The id of a session, from its id or its short name.
 *
 * @throws CommandError when there is none, or several
 */
export async function findSessionId(session: Session, text: string): Promise<string> {
  if (UUID.test(text)) return text;
  const [, username = '', prefix = ''] = /^([^/]+)\/([0-9a-f-]{4,36})$/i.exec(text) ?? [];
  if (username === '') {
    throw new CommandError(
      'Expected a session as portcullis sessions USER prints it, such as alice/3f9a1c0b.',
    );
  }
  const user = await findUser(session, username);
  const found: string[] = [];
  for await (const page of sessionsOf(session, user.userId)) {
    found.push(
      ...page
        .map(({ sessionId }) => sessionId)
        .filter((sessionId) => sessionId.startsWith(prefix.toLowerCase())),
    );
  }
  const [sessionId] = found;
  if (sessionId === undefined) {
    throw new CommandError(
      `${user.username} has no open session ${text}: see portcullis sessions ${user.username}.`,
    );
  }
  if (found.length > 1) {
    const names = found.map((id) => `${user.username}/${id.slice(0, 13)}`).join(', ');
    throw new CommandError(`Several sessions begin like that: ${names}.`);
  }
  return sessionId;
}

/** The names of users by id, each asked for once. An id without a name, or one that may not be read, stays as it is. */
export function userNames(session: Session): (userId: string) => Promise<string> {
  const known = new Map<string, Promise<string>>();
  const users = session.client(UserServiceClient);
  return async (userId) => {
    if (!UUID.test(userId)) return userId;
    const name =
      known.get(userId) ??
      session.call(users.getUser.bind(users), { userId, username: '' }).then(
        ({ user }) => user?.username ?? userId,
        () => userId,
      );
    known.set(userId, name);
    return await name;
  };
}

/** An instance as people name it: its service, its machine, and enough of its id to tell two of them apart. */
export function instanceName(instance: {
  readonly service: string;
  readonly instance: Uint8Array;
  readonly description?: { readonly host: string } | undefined;
}): string {
  const host = instance.description?.host ?? '';
  const id = Buffer.from(instance.instance).toString('hex').slice(0, 6);
  return `${instance.service}${host === '' ? '' : `@${host}`}/${id}`;
}
