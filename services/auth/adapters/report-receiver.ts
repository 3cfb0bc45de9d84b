/** The reports of services, as the broker brings them: believed as far as their signature reaches. */

import { setTimeout as sleep } from 'node:timers/promises';
import {
  BROKER_RECONNECT_WAIT_MS,
  type BrokerFiles,
  brokerConnection,
  REPORT_SUBJECT,
  REPORT_TYPE,
} from '@portcullis/guard';
import { compactVerify } from 'jose';
import { connect, type Msg, type NatsConnection } from 'nats';
import { Report as ReportMessage } from '../../../proto/gen/portcullis/security/v1/report.js';
import { parseClientKey } from '../clients/credentials.js';
import type { Client } from '../records/clients.js';
import type { ServiceReport } from '../records/service-reports.js';
import { reportOf } from './report-messages.js';

/** The longest report that is looked at, in bytes. */
export const REPORT_BYTES_MAX = 512 * 1024;

/** Most reports that are taken at once; others are not acknowledged, and come again. */
export const REPORTS_UNDER_WAY_MAX = 16;

/** The scope that makes a client an instance, whose reports are taken. */
const INSTANCE_SCOPE = 'auth.sync';

/** The replicas of auth share the reports: each is brought to one of them. */
const QUEUE_GROUP = 'auth';

/** What came of reports. */
export interface ReceivedCounts {
  readonly recorded: number;
  /** Not signed by the client that they name, too large, or no reports at all. */
  readonly forged: number;
}

/** Receives reports until it is closed. */
export interface ReportReceiver {
  counts(): ReceivedCounts;
  close(): Promise<void>;
}

/** What the receiver needs. */
export interface ReportReceiverDeps {
  readonly url: string;
  readonly files?: BrokerFiles | undefined;
  readonly issuer: string;
  /** The client of this name. */
  readonly findClient: (clientId: string) => Promise<Client | undefined>;
  /** Resolves when the report is in the database. */
  readonly record: (report: ServiceReport) => Promise<void>;
  /** A message was not what it claims to be. */
  readonly onForged: () => void;
  readonly wallMs: () => number;
}

/** Starts to receive; it keeps at it, however often the broker goes away. */
export function receiveReports(deps: ReportReceiverDeps): ReportReceiver {
  let connection: NatsConnection | undefined;
  let closed = false;
  let underWay = 0;
  let taken = 0;
  let forged = 0;

  const receive = async (message: Msg): Promise<void> => {
    if (underWay >= REPORTS_UNDER_WAY_MAX) return;
    underWay += 1;
    try {
      const report = await readReport(deps, message.data);
      if (report === undefined) {
        forged += 1;
        deps.onForged();
        // Acknowledged, so that an honest sender of nonsense does not send it for ever.
        message.respond();
        return;
      }
      await deps.record(report);
      taken += 1;
      message.respond();
    } catch {
      // The database is away: without an acknowledgement the report comes again.
    } finally {
      underWay -= 1;
    }
  };
  const stayConnected = async (): Promise<void> => {
    while (!closed) {
      try {
        connection = await connect(brokerConnection(deps.url, 'portcullis auth reports', deps.files));
        if (closed) return await connection.close();
        connection.subscribe(`${REPORT_SUBJECT}.*`, {
          queue: QUEUE_GROUP,
          callback: (error, message) => {
            if (error === null) void receive(message);
          },
        });
        await connection.closed();
      } catch {
        // The broadcaster tells of a broker that is away.
      }
      if (!closed) await sleep(BROKER_RECONNECT_WAIT_MS, undefined, { ref: false });
    }
  };
  void stayConnected();

  return {
    counts: () => ({ recorded, forged }),
    close: async () => {
      closed = true;
      await connection?.close();
    },
  };
}

/**
 * The report in a message; undefined when it is none that can be believed. What is believed is that a process with
 * this client's key says so. It may lie about the calls that it was asked for, and about nothing else.
 */
async function readReport(deps: ReportReceiverDeps, bytes: Uint8Array): Promise<ServiceReport | undefined> {
  if (bytes.byteLength > REPORT_BYTES_MAX) return undefined;
  const jws = Buffer.from(bytes).toString('latin1');
  const clientId = clientIdIn(jws);
  if (clientId === undefined) return undefined;
  const client = await deps.findClient(clientId);
  // A client is disabled because somebody else may have its key: what that signs is no longer believed.
  if (client === undefined || client.disabled || !client.scopes.includes(INSTANCE_SCOPE)) return undefined;
  if (client.publicKeyPem === undefined) return undefined;
  const key = parseClientKey(client.publicKeyPem);
  if ('fault' in key) return undefined;
  try {
    const verified = await compactVerify(jws, key.key, { algorithms: [...key.algorithms] });
    if (verified.protectedHeader.typ !== REPORT_TYPE) return undefined;
    return reportOf(ReportMessage.decode(verified.payload), { source: clientId, ...deps });
  } catch {
    return undefined;
  }
}

/** The client that a message names, which is not known to be true yet. */
function clientIdIn(jws: string): string | undefined {
  try {
    const header: unknown = JSON.parse(Buffer.from(jws.split('.', 1)[0] ?? '', 'base64url').toString('utf8'));
    const kid = typeof header === 'object' && header !== null && 'kid' in header ? header.kid : undefined;
    return typeof kid === 'string' && /^[a-z0-9][a-z0-9._-]{0,63}$/.test(kid) ? kid : undefined;
  } catch {
    return undefined;
  }
}
