/** Receives service reports from the broker, and verifies their signatures. */

import type { BrokerFiles, BrokerState, GuardLog } from '@portcullis/guard';
import { keepConnected, REPORT_SUBJECT, REPORT_TYPE } from '@portcullis/guard/internal';
import { compactVerify } from 'jose';
import type { Msg } from 'nats';
import { Report as ReportMessage } from '../../../proto/gen/portcullis/security/v1/report.js';
import type { ClientKey } from '../clients/credentials.js';
import { usableKeysOf } from '../clients/stored-credentials.js';
import type { Client } from '../records/clients.js';
import type { ServiceReport } from '../records/service-reports.js';
import { reportOf } from './report-messages.js';

/** Longest accepted report, in bytes. */
const REPORT_BYTES_MAX = 512 * 1024;

/** Maximum number of reports that are recorded at once; others are not acknowledged, so they are sent again. */
const REPORTS_UNDER_WAY_MAX = 16;

/** The scope of clients whose reports are accepted. */
const INSTANCE_SCOPE = 'auth.sync';

/** The queue group of the replicas of auth: each report is delivered to one of them. */
const QUEUE_GROUP = 'auth';

/** Counts of received reports. */
interface ReceivedCounts {
  readonly recorded: number;
  /** Too large, not a report, or not signed by the client that it names. */
  readonly forged: number;
}

/** Receives reports until it is closed. */
export interface ReportReceiver {
  counts(): ReceivedCounts;
  /** The state of its connection to the broker. */
  brokerState(): BrokerState;
  close(): Promise<void>;
}

export interface ReportReceiverDeps {
  readonly url: string;
  readonly files?: BrokerFiles | undefined;
  readonly issuer: string;
  /** Returns the client with this id. */
  readonly findClient: (clientId: string) => Promise<Client | undefined>;
  /** Resolves when the report is in the database. */
  readonly record: (report: ServiceReport) => Promise<void>;
  /** Called for each forged message. */
  readonly onForged: () => void;
  readonly wallMs: () => number;
  /** Default: none. */
  readonly log?: Pick<GuardLog, 'info' | 'warn'> | undefined;
}

/** Starts receiving, and reconnects whenever the connection is lost. */
export function receiveReports(deps: ReportReceiverDeps): ReportReceiver {
  let underWay = 0;
  let recorded = 0;
  let forged = 0;

  const receive = async (message: Msg): Promise<void> => {
    if (underWay >= REPORTS_UNDER_WAY_MAX) return;
    underWay += 1;
    try {
      const report = await readReport(deps, message.data);
      if (report === undefined) {
        forged += 1;
        deps.onForged();
        // Acknowledged, so that an honest client with a broken report does not send it forever.
        message.respond();
        return;
      }
      await deps.record(report);
      recorded += 1;
      message.respond();
    } catch {
      // The database is unreachable. Without an acknowledgement the client sends the report again.
    } finally {
      underWay -= 1;
    }
  };
  const link = keepConnected({
    url: deps.url,
    name: 'portcullis auth reports',
    files: deps.files,
    onOpen: (connection) => {
      connection.subscribe(`${REPORT_SUBJECT}.*`, {
        queue: QUEUE_GROUP,
        callback: (error, message) => {
          if (error === null) void receive(message);
        },
      });
    },
    onChange: ({ state, problem }) => {
      if (state === 'connected') deps.log?.info({ event: 'reports_connected' }, 'reports of services arrive');
      else
        deps.log?.warn(
          { event: 'reports_lost', reason: state, why: problem },
          'reports of services wait for the broker',
        );
    },
  });

  return {
    counts: () => ({ recorded, forged }),
    brokerState: () => link.status().state,
    close: () => link.close(),
  };
}

/**
 * The report in a message; undefined when its signature does not verify. A verified report proves that a process with
 * this client's key sent it. The process may lie about the calls that it received, and about nothing else.
 */
async function readReport(deps: ReportReceiverDeps, bytes: Uint8Array): Promise<ServiceReport | undefined> {
  if (bytes.byteLength > REPORT_BYTES_MAX) return undefined;
  const jws = Buffer.from(bytes).toString('latin1');
  const clientId = clientIdIn(jws);
  if (clientId === undefined) return undefined;
  const client = await deps.findClient(clientId);
  // A client is disabled because an attacker may have its key, so its signatures no longer count.
  if (client === undefined || client.disabled || !client.scopes.includes(INSTANCE_SCOPE)) return undefined;
  for await (const { key } of usableKeysOf(client)) {
    const payload = await payloadSignedBy(key, jws);
    if (payload !== undefined) return reportIn(payload, clientId, deps);
  }
  return undefined;
}

async function payloadSignedBy({ key, algorithms }: ClientKey, jws: string): Promise<Uint8Array | undefined> {
  try {
    const { payload, protectedHeader } = await compactVerify(jws, key, { algorithms: [...algorithms] });
    return protectedHeader.typ === REPORT_TYPE ? payload : undefined;
  } catch {
    return undefined;
  }
}

function reportIn(payload: Uint8Array, source: string, deps: ReportReceiverDeps): ServiceReport | undefined {
  try {
    return reportOf(ReportMessage.decode(payload), { source, ...deps });
  } catch {
    return undefined;
  }
}

/** The client that a message names; unverified. */
function clientIdIn(jws: string): string | undefined {
  try {
    const header: unknown = JSON.parse(Buffer.from(jws.split('.', 1)[0] ?? '', 'base64url').toString('utf8'));
    const kid = typeof header === 'object' && header !== null && 'kid' in header ? header.kid : undefined;
    return typeof kid === 'string' && /^[a-z0-9][a-z0-9._-]{0,63}$/.test(kid) ? kid : undefined;
  } catch {
    return undefined;
  }
}
