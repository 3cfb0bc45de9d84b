/** The security reports of one guard: what they count, and how they reach the issuer. */

import type { Clock } from '../clock.js';
import type { GuardErrorCode } from '../errors.js';
import type { GuardLog } from '../log.js';
import {
  createReportSender,
  type Reporting,
  type ReportingState,
  type SendReport,
  startReporting,
} from '../reports/report-sender.js';
import { ReportCollector } from '../reports/security-reports.js';
import type { BrokerState } from '../revocation/broker-link.js';
import type { VerifiedToken } from '../revocation/verified-tokens.js';
import type { PlaintextUse } from '../wire/connection.js';
import type { EngineOptions } from './options.js';

const NO_REPORTS: ReportingState = { sent: 0, lost: 0, waiting: 0 };

/** A call whose peer has an address. It is read only where reports are sent. */
export interface Addressed {
  /** The IP address of the peer; empty when it is unknown. */
  readonly address: string;
}

export class GuardReports {
  /** Undefined where reports cannot be sent: they would only use memory. */
  readonly #collector: ReportCollector | undefined;
  readonly #reporting: Reporting | undefined;
  readonly #sender: Sender;

  constructor(options: EngineOptions & { readonly log: GuardLog }, instance: Uint8Array, clock: Clock) {
    this.#sender = senderOf(options);
    const { send } = this.#sender;
    if (send === undefined) return;
    const collector = new ReportCollector({ service: options.audience, instance, clock });
    this.#collector = collector;
    this.#reporting = startReporting({ collector, send });
  }

  /** Counts a connection. */
  recordConnection(plaintext: PlaintextUse): void {
    this.#collector?.recordConnection(plaintext);
  }

  /** Counts an admitted call. */
  recordAdmitted(token: VerifiedToken, call: Addressed): void {
    this.#collector?.recordAdmitted(token, call.address);
  }

  /** Counts a refused call; `token` is the verified token, if there is one. */
  recordRefused(reason: GuardErrorCode, token: VerifiedToken | undefined, call: Addressed): void {
    this.#collector?.recordRefused(reason, token, call.address);
  }

  /** Counts a message on the broker that was not signed by the issuer. */
  recordForgedBroadcast(): void {
    this.#collector?.recordForgedBroadcast();
  }

  state(): ReportingState {
    return this.#reporting?.state() ?? NO_REPORTS;
  }

  /** The state of the connection to the broker; undefined where there is none. */
  brokerState(): BrokerState | undefined {
    return this.#sender.state();
  }

  /** Tries once to send the remaining reports, then stops. */
  async close(): Promise<void> {
    await this.#reporting?.close();
    await this.#sender.close();
  }
}

/** How this process sends its reports: to its own issuer, over the broker with a client key, or not at all. */
interface Sender {
  readonly send: SendReport | undefined;
  state(): BrokerState | undefined;
  close(): Promise<void>;
}

function senderOf({ auth, nats, audience, log }: EngineOptions & { readonly log: GuardLog }): Sender {
  const unconnected = { state: () => undefined, close: async () => {} };
  if ('source' in auth) return { send: auth.report, ...unconnected };
  if (nats === undefined) return { send: undefined, ...unconnected };
  const { clientId, clientKey } = auth;
  return createReportSender({ ...nats, service: audience, clientId, clientKey, log });
}
