/** The checks of what runs: clocks, instances, and the record of events. */

import { found, type ReviewFacts, type ReviewFinding } from './review-findings.js';

/** Largest difference between clocks that is not reported, in milliseconds. */
const CLOCK_DIFFERENCE_MS_GOOD = 1000;

/** Largest difference between clocks at which good tokens are still accepted, in milliseconds. */
const CLOCK_DIFFERENCE_MS_MAX = 5000;

export function checkClocks({ clockDifferenceMs, reporting }: ReviewFacts): readonly ReviewFinding[] {
  const clocks = [
    { subject: 'auth', differenceMs: clockDifferenceMs },
    ...reporting.map((one) => ({
      subject: `${one.service} ${one.instance}`,
      differenceMs: one.clockDifferenceMs,
    })),
  ];
  return clocks.flatMap(({ subject, differenceMs }) => {
    const away = Math.abs(differenceMs);
    const grade = away > CLOCK_DIFFERENCE_MS_MAX ? 'critical' : 'weak';
    return found(away > CLOCK_DIFFERENCE_MS_GOOD, 'CLOCK_DIFFERS', grade, {
      subject,
      fact: `the clock of ${subject} is ${Math.round(away)} ms ${differenceMs > 0 ? 'ahead of' : 'behind'} the database's`,
      remedy: 'synchronise both machines with one time server (NTP)',
    });
  });
}

export function checkInstances({ instances, settings }: ReviewFacts): readonly ReviewFinding[] {
  return instances.flatMap((one) => {
    const subject = `${one.service} ${one.instance.toString('hex')}`;
    const isSilent = one.leaseLeftMs <= 0 && one.lastSyncAgeMs > settings.leaseMs;
    if (isSilent) {
      return found(true, 'INSTANCE_SILENT', 'note', {
        subject,
        fact: `its last sync was ${Math.round(one.lastSyncAgeMs / 1000)} seconds ago: it has stopped, or cannot reach auth and rejects calls`,
        remedy: 'nothing if it was stopped; otherwise check its /readyz',
      });
    }
    const isBehind = one.lag > 0n || !one.currentEpoch || one.leaseLeftMs <= 0;
    return found(isBehind, 'INSTANCE_BEHIND', 'weak', {
      subject,
      fact: one.currentEpoch
        ? `it lacks ${one.lag} entries of the revocation log, and has ${Math.max(0, Math.round(one.leaseLeftMs))} ms of its lease left`
        : 'it follows an older epoch of the revocation log',
      remedy: 'check its /readyz and its log',
    });
  });
}

export function checkRecord({ lostEvents, changedLogs }: ReviewFacts): readonly ReviewFinding[] {
  return [
    ...found(changedLogs > 0, 'LOG_CHANGED', 'critical', {
      subject: 'revocation log',
      fact: 'within the last day an instance had revocations that the database does not have',
      remedy: 'open a new epoch, unless one was opened since: the database was restored or lost transactions',
    }),
    ...found(lostEvents > 0, 'EVENTS_LOST', 'weak', {
      subject: 'security events',
      fact: `within the last day ${lostEvents} security events or service reports were lost`,
      remedy: 'find the cause in the logs: the database or the broker was unreachable for long',
    }),
  ];
}
