/** Records of failed authentications: the name and the network, never the typed text. */

import { createHmac } from 'node:crypto';
import type { Clock } from '@portcullis/guard/clock';
import { networkOfPeer } from '@portcullis/guard/networks';
import { foldUsername, parseUsername } from '../accounts/usernames.js';
import type { Subject } from '../records/security-events.js';
import type { SecurityLog } from '../security/event-log.js';
import type { EventLog } from '../security/event-recorder.js';
import { identifiersOf } from '../security/events.js';
import { createSampledWarning } from '../security/sampled-warning.js';
import type { ClientRefusal } from '../tokens/service-tokens.js';

/** A failed login, or a password change with a wrong old password. */
interface LoginFailure {
  readonly what: 'login' | 'change of password';
  /** The name as it was typed. */
  readonly name: string;
  /** The user of that name; undefined when there is none. */
  readonly userId?: string | undefined;
  /** The peer's address. */
  readonly peer: string;
}

/** Records failed authentications as security events; neither waits nor throws. */
export interface LoginFailures {
  /** The password is wrong, or there is no such user, or the user may not log in. */
  failed(failure: LoginFailure): void;
  /** The limit of attempts was reached. */
  limited(failure: LoginFailure): void;
  /**
   * A client failed to authenticate. At most one event a minute is recorded for each client, network and fault, and at
   * most one line a second is logged.
   */
  clientRefused(refusal: ClientRefusal): void;
}

/** Length of a name's hash, in characters: enough to distinguish names. */
const NAME_HASH_CHARACTERS = 22;

interface LoginFailuresDeps {
  readonly events: Pick<SecurityLog, 'note' | 'noteSampled'>;
  /** Secret under which unknown names are hashed; the same on all replicas. */
  readonly key: Buffer;
  readonly log: EventLog;
  readonly clock: Clock;
}

export function createLoginFailures({ events, key, log, clock }: LoginFailuresDeps): LoginFailures {
  const logClient = createSampledWarning(log, clock);
  const subjectOf = ({ userId, name }: LoginFailure): Subject => {
    if (userId !== undefined) return { userId };
    // Users sometimes type a password as their name: the hash reveals only which typed names are equal.
    const parsed = parseUsername(name);
    const spelling = parsed === undefined ? name : foldUsername(parsed);
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
        network: networkOfPeer(failure.peer),
        details: { what: failure.what },
      }),
    clientRefused: ({ clientId, peer, fault: { fault, seconds, message } }) => {
      const network = networkOfPeer(peer);
      const details = { fault, ...(seconds !== undefined && { seconds }) };
      logClient({ event: 'client_refused', clientId, network, ...details }, `refused a client: ${message}`);
      events.noteSampled(`client-refused ${clientId} ${network} ${fault}`, {
        type: 'client-authentication-failed',
        subject: { clientId },
        actor: 'anybody',
        reason: 'CLIENT_AUTHENTICATION_FAILED',
        network,
        details,
      });
    },
    limited: (failure) => {
      const network = networkOfPeer(failure.peer);
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
