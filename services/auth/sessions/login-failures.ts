/** What is recorded of logins that are refused: whose name was tried and from where, never what was typed. */

import { createHmac } from 'node:crypto';
import { parseUsername } from '../accounts/usernames.js';
import type { Subject } from '../records/security-events.js';
import type { SecurityLog } from '../security/event-log.js';
import { identifiersOf } from '../security/events.js';
import { networkOf } from '../security/throttle.js';

/** A refused attempt. */
export interface LoginFailure {
  readonly what: 'login' | 'change of password';
  /** As it was typed. */
  readonly name: string;
  /** Whose name it is; undefined when it is nobody's. */
  readonly userId?: string | undefined;
  /** The address the attempt came from. */
  readonly peer: string;
}

/** Tells the record of refused logins; neither waits nor throws. */
export interface LoginFailures {
  /** The password was wrong, or there is no such user, or the user may not log in. */
  failed(failure: LoginFailure): void;
  /** There had been too many attempts. */
  limited(failure: LoginFailure): void;
  /** A client could not prove who it is; one of these is recorded in a minute for each client and network. */
  clientRefused(clientId: string | undefined, peer: string): void;
}

/** Characters of a name's hash: enough to tell names apart. */
const NAME_HASH_CHARACTERS = 22;

/**
 * Makes what tells the record.
 *
 * @param key - secret under which unknown names are hashed; the same on all replicas
 */
export function createLoginFailures({
  events,
  key,
}: {
  readonly events: Pick<SecurityLog, 'note' | 'noteSampled'>;
  readonly key: Buffer;
}): LoginFailures {
  const subjectOf = ({ userId, name }: LoginFailure): Subject => {
    if (userId !== undefined) return { userId };
    // People type passwords where their name belongs: equal ones can be told, and nothing else.
    const spelling = parseUsername(name) ?? name;
    const hash = createHmac('sha256', key).update(spelling.slice(0, 256), 'utf8').digest('base64url');
    return { nameHash: hash.slice(0, NAME_HASH_CHARACTERS) };
  };
  return {
    failed: (failure) =>
      events.note({
        type: 'login-failed',
        subject: subjectOf(failure),
        actor: 'anybody',
        reason: 'LOGIN_FAILED',
        network: networkOf(failure.peer),
        details: { what: failure.what },
      }),
    clientRefused: (clientId, peer) => {
      const network = networkOf(peer);
      events.noteSampled(`client-refused ${clientId} ${network}`, {
        ...{
          type: 'client-authentication-failed',
          subject: { clientId },
          network,
          actor: 'anybody',
          details: {},
        },
        reason: 'CLIENT_AUTHENTICATION_FAILED',
      });
    },
    limited: (failure) => {
      const network = networkOf(failure.peer);
      const subject = subjectOf(failure);
      events.noteSampled(`login-limited ${identifiersOf(subject).join()} ${network}`, {
        type: 'login-limited',
        subject,
        actor: 'anybody',
        reason: 'RATE_LIMITED',
        network,
        details: { what: failure.what },
      });
    },
  };
}
