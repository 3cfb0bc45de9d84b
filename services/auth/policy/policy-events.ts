/** The security events of a change of the policy. */

import type { NewSecurityEvent } from '../records/security-events.js';
import { changeText, type PolicyChange } from './differences.js';

/** Maximum number of changes that one event names. */
export const EVENT_CHANGES_MAX = 20;

/**
 * Maximum number of events of one request. What clients gain and lose may be far more changes, and has an event for each
 * client.
 */
export const EVENTS_MAX = 50;

type PolicyEvent = NewSecurityEvent<'policy-changed'>;

/**
 * The events that name what a request has changed, {@link EVENT_CHANGES_MAX} each; one without changes names none.
 *
 * @param common.eventId - the id of the first event; the others get their own
 */
export function policyEvents(
  { eventId, ...common }: Omit<PolicyEvent, 'type' | 'details' | 'eventId'> & { readonly eventId: string },
  changes: readonly PolicyChange[],
): readonly PolicyEvent[] {
  const count = changes.length;
  const events = Math.min(EVENTS_MAX, Math.max(1, Math.ceil(count / EVENT_CHANGES_MAX)));
  return Array.from({ length: events }, (_, at) => {
    const start = at * EVENT_CHANGES_MAX;
    const named = changes.slice(start, start + EVENT_CHANGES_MAX).map(changeText);
    const details = { changes: named, count, first: start + 1 };
    return { ...common, ...(at === 0 && { eventId }), type: 'policy-changed', details };
  });
}
