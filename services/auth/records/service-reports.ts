/** What services report about the calls that they received. */

/** A caller, as a verified token named it. */
export interface ReportedCaller {
  readonly issuer: string;
  readonly subject: string;
  readonly clientId: string;
  /** Empty when there is none. */
  readonly sessionId: string;
  /** True when a service acts for the subject. */
  readonly delegated: boolean;
}

/** The number of rejected calls with the same reason, network and caller. */
export interface RefusedCalls {
  readonly reason: string;
  readonly network: string;
  /** Undefined when no token was verified. */
  readonly caller: ReportedCaller | undefined;
  readonly calls: number;
}

/** The number of admitted calls of one principal and session. */
export interface AdmittedCalls {
  readonly caller: ReportedCaller;
  readonly calls: number;
  readonly networks: readonly string[];
}

/** The report of one instance about one interval. */
export interface ServiceReport {
  /** A UUID. */
  readonly reportId: string;
  /** The client that signed it, or auth itself. */
  readonly source: string;
  readonly service: string;
  /** The instance's identifier in hexadecimal digits. */
  readonly instance: string;
  /** By the instance's clock. */
  readonly beginTime: Date;
  readonly endTime: Date;
  readonly refused: readonly RefusedCalls[];
  readonly refusedLeftOut: number;
  readonly admitted: readonly AdmittedCalls[];
  readonly principalsLeftOut: number;
  readonly forgedBroadcasts: number;
  readonly lostReports: number;
  readonly plaintext: boolean;
  readonly remotePlaintext: boolean;
}
