/** One security event for many revocations of one transaction, so that a flood does not fill the record. */

import { randomUUID } from 'node:crypto';
import type { NewSecurityEvent, Subject } from '../records/security-events.js';

/** From this number on, revocations of one transaction that differ only in their targets share one event. */
export const ROLLED_UP_MIN = 10;

/** What is recorded for the revocations of one transaction. */
export interface RolledUp {
  readonly events: readonly NewSecurityEvent[];
  /** For each revocation the id of the event that it shares, for the log; undefined when it has its own. */
  readonly sharedIds: readonly (string | undefined)[];
}

/** Events that can share one: an actor revokes for one reason. */
type Revoking = NewSecurityEvent<'session-revoked' | 'token-revoked'>;

/**
 * Rolls up the events of revocations of sessions and tokens that have the same actor, reason, network, initiator and claim.
 * Fewer than {@link ROLLED_UP_MIN} keep their own events: a person revokes so many. The targets stand in the log, under
 * the id of the event, for as long as their tokens live.
 */
export function rollUp(events: readonly NewSecurityEvent[]): RolledUp {
  const alike = new Map<string, Revoking[]>();
  for (const event of events) {
    const key = keyOf(event);
    if (key === undefined) continue;
    const others = alike.get(key);
    if (others === undefined) alike.set(key, [event as Revoking]);
    else others.push(event as Revoking);
  }
  const shared = new Map<string, NewSecurityEvent & { readonly eventId: string }>();
  for (const [key, members] of alike) {
    if (members.length >= ROLLED_UP_MIN) shared.set(key, sharedEvent(members));
  }
  if (shared.size === 0) return { events, sharedIds: events.map(() => undefined) };
  const sharedOf = (event: NewSecurityEvent) => shared.get(keyOf(event) ?? '');
  return {
    events: [...events.filter((event) => sharedOf(event) === undefined), ...shared.values()],
    sharedIds: events.map((event) => sharedOf(event)?.eventId),
  };
}

/** Equal for events that can share one; undefined for other events. */
function keyOf(event: NewSecurityEvent): string | undefined {
  if (event.type !== 'session-revoked' && event.type !== 'token-revoked') return undefined;
  const { type, actor, reason, network, details } = event;
  const { initiator = '', claim = '' } = 'initiator' in details ? details : {};
  return JSON.stringify([type, initiator, claim, actor, reason, network]);
}

function sharedEvent(members: readonly Revoking[]): NewSecurityEvent & { readonly eventId: string } {
  const [first] = members;
  if (first === undefined) throw new TypeError('no event to share');
  return {
    ...first,
    subject: commonSubject(members.map(({ subject }) => subject)),
    details: { ...withoutValue(first.details), revocations: members.length },
    eventId: randomUUID(),
  } as NewSecurityEvent & { readonly eventId: string };
}

/** Each revocation by a claim has a value of its own. */
function withoutValue({ ...details }: Revoking['details']): Revoking['details'] {
  if ('value' in details) delete details.value;
  return details;
}

/** The identifiers that all subjects have in common, such as the user of many sessions. */
function commonSubject([first = {}, ...others]: readonly Subject[]): Subject {
  return Object.fromEntries(
    Object.entries(first).filter(([name, id]) =>
      others.every((subject) => subject[name as keyof Subject] === id),
    ),
  );
}
