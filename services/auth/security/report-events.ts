/** The security events that follow from a service report. */

import type { NewSecurityEvent } from '../records/security-events.js';
import type { RefusedCalls, ServiceReport } from '../records/service-reports.js';

/** Maximum number of networks that an event of refused calls names. */
const REFUSED_NETWORKS_MAX = 5;

/** Returns one event per reason of refused calls, and one each for forged broadcasts and lost reports. */
export function eventsOfReport(report: ServiceReport): NewSecurityEvent[] {
  const { service, source, refused, forgedBroadcasts, lostReports } = report;
  const about = { subject: { service }, actor: source, source, network: '' };
  const events: NewSecurityEvent[] = sumsByReason(refused).map(({ reason, calls, networks }) => ({
    ...about,
    type: 'calls-refused',
    reason,
    details: { calls, networks },
  }));
  if (forgedBroadcasts > 0) {
    const reason = 'messages on the broker that the issuer has not signed';
    events.push({ ...about, type: 'broadcasts-forged', reason, details: { messages: forgedBroadcasts } });
  }
  if (lostReports > 0) {
    const reason = 'reports of a service were not acknowledged in time';
    events.push({ ...about, type: 'events-lost', reason, details: { events: lostReports } });
  }
  return events;
}

function sumsByReason(
  refused: readonly RefusedCalls[],
): { reason: string; calls: number; networks: string[] }[] {
  const sums = new Map<string, { calls: number; networks: Set<string> }>();
  for (const { reason, calls, network } of refused) {
    const sum = sums.get(reason) ?? { calls: 0, networks: new Set() };
    sums.set(reason, sum);
    sum.calls += calls;
    if (sum.networks.size < REFUSED_NETWORKS_MAX) sum.networks.add(network);
  }
  return [...sums].map(([reason, { calls, networks }]) => ({ reason, calls, networks: [...networks] }));
}
