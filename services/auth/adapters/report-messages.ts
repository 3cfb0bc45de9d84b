/** Translates service reports from messages to the domain. */

import { networkOf } from '@portcullis/guard/networks';
import type {
  RefusedCalls as RefusedMessage,
  Report as ReportMessage,
} from '../../../proto/gen/portcullis/security/v1/report.js';
import type { ReportedCaller, ServiceReport } from '../records/service-reports.js';
import { sanitizeText } from '../security/events.js';
import { REPORT_CLOCK_DIFFERENCE_SECONDS_MAX, REPORT_ROWS_MAX } from '../security/report-limits.js';

/**
 * The report of a message; undefined when it is malformed, or when its end time differs too much from the clock. A
 * report that is sent again is recognised by its id for as long as reports are kept.
 */
export function reportOf(
  message: ReportMessage,
  { source, issuer, wallMs }: { source: string; issuer: string; wallMs: () => number },
): ServiceReport | undefined {
  const { reportId, instance, beginTime, endTime, refused, admitted } = message;
  if (reportId.length !== 16 || instance.length !== 16 || beginTime === undefined || endTime === undefined) {
    return undefined;
  }
  const awayMs = Math.abs(endTime.getTime() - wallMs());
  if (awayMs > REPORT_CLOCK_DIFFERENCE_SECONDS_MAX * 1000) return undefined;
  if (refused.length > REPORT_ROWS_MAX || admitted.length > REPORT_ROWS_MAX) return undefined;
  const callerOf = (caller: RefusedMessage['caller']): ReportedCaller | undefined =>
    caller && {
      // This issuer is left out.
      issuer: caller.issuer === issuer ? '' : sanitizeText(caller.issuer),
      subject: sanitizeText(caller.subject),
      clientId: sanitizeText(caller.clientId),
      sessionId: sanitizeText(caller.sessionId),
      delegated: caller.delegated,
    };
  return {
    reportId: uuidOf(reportId),
    source,
    service: sanitizeText(message.service),
    instance: instance.toString('hex'),
    beginTime,
    endTime,
    refused: refused.map(({ reason, address, caller, calls }) => ({
      reason: sanitizeText(reason),
      network: sanitizeText(networkOf(address)),
      caller: callerOf(caller),
      calls: Number(calls),
    })),
    refusedLeftOut: Number(message.refusedLeftOut),
    admitted: admitted.flatMap(({ caller, calls, addresses }) => {
      const known = callerOf(caller);
      const networks = [
        ...new Set(addresses.slice(0, 64).map((address) => sanitizeText(networkOf(address)))),
      ];
      return known === undefined ? [] : [{ caller: known, calls: Number(calls), networks }];
    }),
    principalsLeftOut: Number(message.principalsLeftOut),
    forgedBroadcasts: Number(message.forgedBroadcasts),
    lostReports: Number(message.lostReports),
    plaintext: message.plaintext,
    remotePlaintext: message.remotePlaintext,
  };
}

function uuidOf(bytes: Buffer): string {
  const hex = bytes.toString('hex');
  return [hex.slice(0, 8), hex.slice(8, 12), hex.slice(12, 16), hex.slice(16, 20), hex.slice(20)].join('-');
}
