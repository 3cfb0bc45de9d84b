/** The users, as administrators create and read them. */

import type { PageRequest } from '../records/page.js';
import type { User } from '../records/users.js';
import type { AuthStore } from '../transaction.js';
import { type CreateUserDeps, createUser, type NewUser } from './create-user.js';
import { noSuchUser, parseUserId } from './user-change.js';
import { parseUsername } from './usernames.js';

/** The commands with which administrators create and read users. */
export interface Users {
  create(request: NewUser): Promise<User>;
  /** Throws NOT_FOUND. */
  get(userId: string): Promise<User>;
  /** By name, in any of its spellings. Throws NOT_FOUND. */
  getByName(username: string): Promise<User>;
  /** A page of users, by name, for a user who takes turns with others. Throws FIELD_INVALID. */
  list(page: PageRequest, caller?: string): Promise<{ users: User[]; nextPageToken: string }>;
}

export function createUsers(deps: CreateUserDeps): Users {
  const { store } = deps;
  return {
    create: (request) => createUser(deps, request),
    get: async (userId) => await getUser(store, parseUserId(userId)),
    getByName: async (username) => getUser(store, await idOfName(store, username)),
    list: (page, caller) => store.transaction((tx) => tx.users.list(page), { caller }),
  };
}

async function getUser(store: AuthStore, userId: string): Promise<User> {
  const user = await store.transaction((tx) => tx.users.find(userId));
  if (user === undefined) throw noSuchUser();
  return user;
}

async function idOfName(store: AuthStore, text: string): Promise<string> {
  const username = parseUsername(text);
  const found = username && (await store.reads.users.credentialsByName(username, { importance: 'known' }));
  if (!found) throw noSuchUser();
  return found.userId;
}
