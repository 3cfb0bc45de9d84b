/** Recorded traffic: the security events and service reports of a real run, one JSON object a line. */

import { readFile } from 'node:fs/promises';
import type { SecurityEvent } from '../../services/auth/records/security-events.js';
import type { ServiceReport } from '../../services/auth/records/service-reports.js';
import type { Observation } from '../../services/auth/security/anomaly-rules.js';
import type { Trace } from './trace.js';

/** The committed recording: a run of `npm run attack -- --part alarms --record FILE`. */
export const RECORDING = new URL('./recorded.jsonl', import.meta.url);

/** Reads a recording. The planted attacks are those that auth found during the recorded run. */
export async function readRecording(file: URL | string): Promise<Trace> {
  const lines = (await readFile(file, 'utf8')).split('\n').filter((line) => line !== '');
  const observations = lines.map(observationOf);
  const planted = observations.flatMap((observation) => {
    const event = 'event' in observation ? observation.event : undefined;
    if (event?.type !== 'anomaly-detected') return [];
    const { subject, details } = event;
    const id = subject.sessionId ?? subject.userId ?? subject.network ?? subject.nameHash ?? '';
    const timeMs = event.time.getTime();
    return [{ rule: details.rule, subject: id, beginMs: timeMs - 60_000, endMs: timeMs + 60_000 }];
  });
  const ordinaryCalls = observations.reduce(
    (sum, observation) => sum + ('report' in observation ? admittedIn(observation.report) : 0),
    0,
  );
  return { name: 'recorded traffic', observations, ordinaryCalls, planted };
}

function admittedIn({ admitted }: ServiceReport): number {
  return admitted.reduce((sum, { calls }) => sum + calls, 0);
}

function observationOf(line: string): Observation {
  const item = JSON.parse(line) as { time: string; event?: object; report?: object };
  const time = new Date(item.time);
  if (item.event !== undefined) return { time, event: { ...item.event, time } as SecurityEvent };
  const report = item.report as ServiceReport;
  return {
    time,
    report: { ...report, beginTime: new Date(report.beginTime), endTime: new Date(report.endTime) },
  };
}
