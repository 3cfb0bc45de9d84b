/** Sends security reports to the issuer over the broker: signed, acknowledged, and bounded in number. */

import { createPrivateKey, KeyObject } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';
import { CompactSign } from 'jose';
import { Report } from '../../gen/portcullis/security/v1/report.js';
import { algorithmOf, type ClientKey } from '../client/client-key.js';
import { systemTimers, type Timers } from '../clock.js';
import type { GuardLog } from '../log.js';
import { type BrokerFiles, brokerConnection } from '../revocation/broker.js';
import { type BrokerState, keepConnected } from '../revocation/broker-link.js';
import { REPORT_INTERVAL_MS, type ReportCollector } from './security-reports.js';

/** Prefix of the NATS subject. The sender's user name at the broker follows; only that user may publish there. */
export const REPORT_SUBJECT = 'portcullis.v1.security';

/** `typ` of a report, so that a report, a token and a client assertion cannot be confused. */
export const REPORT_TYPE = 'portcullis-security-report+jws';

/** Maximum number of reports that wait for an acknowledgement. Beyond it the oldest is dropped, and counted as lost. */
export const REPORTS_WAITING_MAX = 24;

/** How long to wait for an acknowledgement, in milliseconds. */
const REPORT_ACKNOWLEDGED_MS = 2000;

/** The delay before an unacknowledged report is sent again, in milliseconds. */
const REPORT_RETRY_MS = 1000;

/** Sends one report to the issuer. Rejects unless the issuer acknowledged it. */
export type SendReport = (report: Report) => Promise<void>;

/** Numbers of reports. */
export interface ReportingState {
  readonly sent: number;
  readonly lost: number;
  readonly waiting: number;
}

/** Sends reports at regular intervals until it is closed. */
export interface Reporting {
  state(): ReportingState;
  /** Tries once to send the remaining reports, then stops. */
  close(): Promise<void>;
}

/** Starts reporting. A report that cannot be sent waits; a report that is dropped is counted in the next one. */
export function startReporting(options: {
  readonly collector: ReportCollector;
  readonly send: SendReport;
  readonly timers?: Timers;
  readonly intervalMs?: number;
}): Reporting {
  const { collector, send, timers = systemTimers, intervalMs = REPORT_INTERVAL_MS } = options;
  const waiting: Report[] = [];
  let sent = 0;
  let lost = 0;
  let unreportedLosses = 0;
  let sending: Promise<void> | undefined;
  let closed = false;
  let stop = (): void => {};

  const collect = (): void => {
    const report = collector.collect(unreportedLosses);
    if (report === undefined) return;
    unreportedLosses = 0;
    waiting.push(report);
    if (waiting.length <= REPORTS_WAITING_MAX) return;
    const [oldest] = waiting.splice(0, 1);
    lost += 1;
    // The dropped report itself carried a count of earlier losses.
    unreportedLosses += 1 + Number(oldest?.lostReports ?? 0n);
  };
  const sendAll = async (): Promise<void> => {
    while (waiting.length > 0) {
      const [report] = waiting;
      if (report === undefined) return;
      try {
        await send(report);
        sent += 1;
        const at = waiting.indexOf(report);
        if (at >= 0) waiting.splice(at, 1);
      } catch {
        if (closed) return;
        await sleep(REPORT_RETRY_MS, undefined, { ref: false });
      }
    }
  };
  const trySending = (): void => {
    sending ??= sendAll().finally(() => {
      sending = undefined;
    });
  };
  const plan = (): void => {
    stop = timers.after(intervalMs, () => {
      if (closed) return;
      collect();
      trySending();
      plan();
    });
  };
  plan();

  return {
    state: () => ({ sent, lost, waiting: waiting.length }),
    close: async () => {
      closed = true;
      stop();
      collect();
      trySending();
      await Promise.race([sending, sleep(REPORT_ACKNOWLEDGED_MS, undefined, { ref: false })]);
    },
  };
}

/** Sends signed reports over a connection of its own. */
export interface ReportSender {
  readonly send: SendReport;
  /** The state of the connection. */
  state(): BrokerState;
  close(): Promise<void>;
}

/** Signs reports with the key of this service's client and sends them over a connection of their own. */
export function createReportSender(options: {
  readonly url: string;
  readonly files?: BrokerFiles | undefined;
  readonly service: string;
  readonly clientId: string;
  readonly clientKey: ClientKey;
  readonly log?: GuardLog | undefined;
}): ReportSender {
  const { url, files, service, clientId, log } = options;
  const key =
    options.clientKey instanceof KeyObject ? options.clientKey : createPrivateKey(options.clientKey);
  const header = { alg: algorithmOf(key), kid: clientId, typ: REPORT_TYPE };
  // A broker without users cannot restrict subjects, and a key has no name; the service's name keeps them apart.
  const subject = `${REPORT_SUBJECT}.${brokerConnection(url, '').user ?? service}`;
  const link = keepConnected({
    url,
    name: `portcullis ${service} reports`,
    files,
    onChange: ({ state, problem }) => {
      if (state === 'connected') log?.info({ event: 'reports_connected' }, 'reports are sent to the issuer');
      else log?.warn({ event: 'reports_lost', reason: state, why: problem }, 'reports wait for the broker');
    },
  });

  return {
    send: async (report) => {
      const connection = link.connection();
      if (connection === undefined) throw new Error('not connected to the broker');
      const jws = await new CompactSign(Report.encode(report).finish()).setProtectedHeader(header).sign(key);
      await connection.request(subject, Buffer.from(jws, 'latin1'), { timeout: REPORT_ACKNOWLEDGED_MS });
    },
    state: () => link.status().state,
    close: link.close,
  };
}
