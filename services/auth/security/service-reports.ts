/** What services report of the calls that they were asked for: claims of theirs, in sums. */

/** Most lists' members of a report that are looked at. */
export const REPORT_ROWS_MAX = 2000;

/** By how much the clock of a service may differ from the database's, in seconds, before its reports are refused. */
export const REPORT_CLOCK_DIFFERENCE_SECONDS_MAX = 3600;

/** A caller, as a verified token named it. */
export interface ReportedCaller {
  readonly issuer: string;
  readonly subject: string;
  readonly clientId: string;
  /** Empty when there is none. */
  readonly sessionId: string;
  /** A service acts for the subject. */
  readonly delegated: boolean;
}

/** Refused calls with a reason and a caller in common. */
export interface RefusedCalls {
  readonly reason: string;
  readonly network: string;
  /** Undefined when no token was verified. */
  readonly caller: ReportedCaller | undefined;
  readonly calls: number;
}

/** Admitted calls of one principal and session. */
export interface AdmittedCalls {
  readonly caller: ReportedCaller;
  readonly calls: number;
  readonly networks: readonly string[];
}

/** What one instance has seen within one interval. */
export interface ServiceReport {
  /** A UUID. */
  readonly reportId: string;
  /** The client that has signed it, or auth itself. */
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
