/** Why a client was refused: for the event and the log. The client itself gets one answer for all. */

/** The faults of an authentication, each with its meaning for operators. */
const CLIENT_FAULTS = {
  'unknown-client': 'there is no such client',
  disabled: 'the client is disabled',
  'no-credential': 'the request has no credential, or one of a kind that the client does not have',
  secret: 'the secret is wrong',
  malformed: 'the assertion is not a JWT, or too long',
  typ: '`typ` is neither JWT nor client-authentication+jwt',
  iss: '`iss` is not the client id of the request',
  sub: '`sub` is not the client id of the request',
  signature: 'no key of the client verifies the signature',
  aud: '`aud` is not exactly the name of this issuer',
  jti: '`jti` is missing or too long',
  exp: 'the assertion has expired, or has no `exp`',
  lifetime: '`exp` is too far in the future',
  clock: '`iat` or `nbf` is in the future: the clock of the client is ahead',
  replay: 'the assertion was used before',
  changed: 'the credential was replaced while it was verified',
} as const;

/** One of {@link CLIENT_FAULTS}. */
export type ClientFaultName = keyof typeof CLIENT_FAULTS;

/** What was wrong with an authentication; the cause of the error CLIENT_AUTHENTICATION_FAILED. */
export class ClientFault extends Error {
  readonly fault: ClientFaultName;
  /** For a time: by how many seconds it was missed. */
  readonly seconds: number | undefined;

  constructor(fault: ClientFaultName, seconds?: number) {
    super(CLIENT_FAULTS[fault]);
    this.fault = fault;
    this.seconds = seconds;
  }
}

/** @param seconds - for a time: by how many seconds it was missed */
export function clientFault(fault: ClientFaultName, seconds?: number): ClientFault {
  return new ClientFault(fault, seconds === undefined ? undefined : Math.round(seconds));
}
