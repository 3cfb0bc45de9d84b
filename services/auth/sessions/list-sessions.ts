/** Lists of open sessions. */

import { parseUuid } from '../../common/validation/identifiers.js';
import { AuthError } from '../errors.js';
import type { PageRequest } from '../records/page.js';
import type { Session } from '../records/sessions.js';
import type { AuthStore } from '../transaction.js';

/** A page of sessions, newest first. */
export interface SessionPage {
  readonly sessions: readonly Session[];
  readonly nextPageToken: string;
}

export interface ListSessionsDeps {
  readonly store: AuthStore;
}

/** The open sessions of the calling user. Throws FIELD_INVALID. */
export function listOwnSessions(
  { store }: ListSessionsDeps,
  { userId }: { readonly userId: string },
  page: PageRequest,
): Promise<SessionPage> {
  return store.transaction((tx) => tx.sessions.listOpen(userId, page), { caller: userId });
}

/** The open sessions of any user. Throws NOT_FOUND, FIELD_INVALID. */
export function listUserSessions(
  { store }: ListSessionsDeps,
  text: string,
  page: PageRequest,
): Promise<SessionPage> {
  return store.transaction(async (tx) => {
    const userId = parseUuid(text);
    const user = userId && (await tx.users.find(userId));
    if (!user) throw new AuthError('NOT_FOUND', 'there is no such user');
    return await tx.sessions.listOpen(user.userId, page);
  });
}
