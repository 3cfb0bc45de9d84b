/** A guarded call between a fake of grpc-js's call below it and a fake handler above it, without a server. */

import { Metadata, type ServerInterceptingCallInterface, status } from '@grpc/grpc-js';
import { GuardError, type GuardErrorCode, type ServiceError } from '../../../interceptors/src/errors.js';
import type { DenialReason } from '../../../interceptors/src/revocation/verified-tokens.js';
import type { Admission } from '../../../interceptors/src/server/admission.js';
import { CallLimits } from '../../../interceptors/src/server/call-limits.js';
import type { CallEngine } from '../../../interceptors/src/server/decided-call.js';
import { DEFAULT_LIMITS, type GuardLimits } from '../../../interceptors/src/server/guard-limits.js';
import {
  type CallGuard,
  type GuardedMethod,
  guardCall,
} from '../../../interceptors/src/server/guarded-call.js';
import {
  type Http2Session,
  type RequestDeadline,
  setRequestDeadline,
} from '../../../interceptors/src/wire/grpc-js-internals.js';
import { errorOf } from '../../../interceptors/src/wire/status.js';
import { SetClock } from '../tokens-support.js';

type Listener = Parameters<ServerInterceptingCallInterface['start']>[0];
type Status = Parameters<ServerInterceptingCallInterface['sendStatus']>[0];

export const UNARY = { requestStream: false, responseStream: false };
export const CLIENT_STREAM = { requestStream: true, responseStream: false };
export const SERVER_STREAM = { requestStream: false, responseStream: true };
export const BIDI = { requestStream: true, responseStream: true };

/** A status as tests compare it: `OK`, or the status and its reason such as `UNAUTHENTICATED TOKEN_REVOKED`. */
function textOf({ code = status.UNKNOWN, details = '', metadata }: Status): string {
  const { reason } = errorOf({ code, details, metadata: metadata ?? new Metadata() });
  return `${status[code]} ${reason}`.trim();
}

const ENCRYPTED = { encrypted: true, socket: { remoteAddress: '192.0.2.1' } };

/** The innermost call of grpc-js, with the fields on which the library relies. */
export class FakeInnerCall implements ServerInterceptingCallInterface {
  /** What reached the peer: metadata, messages and statuses, in order. */
  readonly sent: string[] = [];
  /** The error codes with which its stream was closed. */
  readonly resets: number[] = [];
  readonly stream;
  decoder: { write(data: Buffer): Buffer[] } = { write: () => [] };
  maxReceiveMessageSize = -1;
  listener: Listener | undefined;
  reads = 0;
  readonly #unread: (() => void)[] = [];

  constructor(session: Pick<Http2Session, 'encrypted' | 'socket'> = ENCRYPTED) {
    this.stream = {
      session: { ...session },
      destroyed: false,
      close: (code: number) => void this.resets.push(code),
    };
  }

  start(listener: Listener): void {
    this.listener = listener;
  }

  sendMetadata(): void {
    this.sent.push('metadata');
  }

  sendMessage(message: unknown, callback: () => void): void {
    this.sent.push(String(message));
    this.#unread.push(callback);
  }

  /** Lets the peer read all messages. */
  read(): void {
    for (const callback of this.#unread.splice(0)) callback();
  }

  sendStatus(ending: Status): void {
    this.sent.push(textOf(ending));
  }

  startRead(): void {
    this.reads += 1;
  }

  getPeer = () => '192.0.2.1:1234';
  getDeadline = () => 1234;
  getHost = () => 'host.example';
  getAuthContext = () => ({ transportSecurityType: 'ssl' });
  getConnectionInfo = () => ({ remoteAddress: '192.0.2.1' });
  getMetricsRecorder = (): never => {
    throw new TypeError('no metrics recorder');
  };
}

/** A guard whose decisions a test sets, and which records what it is asked to observe. */
export class FakeGuard implements CallGuard, CallEngine {
  readonly engine = this;
  readonly clock = new SetClock();
  readonly limits: CallLimits;
  readonly fences = { pass: () => Promise.resolve(this.passes) };
  /** Whether the fence lets transactions pass. */
  passes = true;
  admission: Admission | Promise<Admission> = { kind: 'public', requestBytesMax: 1000 };
  denial: DenialReason | undefined;
  checks = 0;
  readonly limited: string[] = [];
  readonly decisions: string[] = [];
  readonly reports: string[] = [];
  readonly failures: unknown[] = [];

  constructor(limits: Partial<GuardLimits> = {}) {
    this.limits = new CallLimits({ ...DEFAULT_LIMITS, ...limits }, this.clock, () => false);
  }

  addressOf = () => '192.0.2.1';
  readonly fenceRefusals: string[] = [];
  onFenceRefused = (reason: string) => void this.fenceRefusals.push(reason);
  onLimit = (limit: string) => void this.limited.push(limit);
  admit = () => this.admission;
  denialReason = (): DenialReason | undefined => {
    this.checks += 1;
    return this.denial;
  };
  validForMs = () => 4321;
  reportAdmitted = () => void this.reports.push('ADMITTED');
  readonly trusted: unknown[] = [];
  trust = (call: unknown) => void this.trusted.push(call);
  observes = false;
  keepsContext = false;
  readonly observed: string[] = [];
  reportRefused = (_path: string, reason: string, token: unknown) =>
    void this.reports.push(token === undefined ? reason : `${reason} with its token`);
  handlerFailed = (path: string, error: unknown) => void this.failures.push([path, error]);
  onObserved = (_path: string, reason: string) => void this.observed.push(reason);
  onDecision = (_path: string, outcome: string) => void this.decisions.push(outcome);

  /** Lets time pass, and ends the calls that have taken too long. */
  sweepAfter(ms: number): void {
    this.clock.pass(ms);
    this.limits.sweep();
  }
}

/** A refusal by the guard. */
export function refusedWith(code: GuardErrorCode): Admission {
  const error: ServiceError<GuardErrorCode> = new GuardError(code, 'refused');
  return { kind: 'refused', error };
}

/** A guarded call whose metadata have arrived; `deadline` is one that grpc-js does not handle. */
export function startFakeCall(
  guard: CallGuard,
  kind: Omit<GuardedMethod, 'path'> = UNARY,
  deadline?: RequestDeadline,
) {
  return startFakeCallOf((inner) => {
    if (deadline !== undefined) setRequestDeadline(inner.stream, deadline);
    return guardCall({ path: '/test.v1.Test/Call', ...kind }, inner, guard);
  });
}

/** The same for a call that a test guards itself. */
export function startFakeCallOf(
  wrap: (inner: FakeInnerCall) => ServerInterceptingCallInterface,
  metadata = new Metadata(),
  inner = new FakeInnerCall(),
) {
  /** What reached the handler, in order. */
  const received: string[] = [];
  const call = wrap(inner);
  call.start({
    onReceiveMetadata: () => void received.push('metadata'),
    onReceiveMessage: (message: unknown) => void received.push(String(message)),
    onReceiveHalfClose: () => void received.push('end'),
    onCancel: () => void received.push('cancelled'),
  });
  const below = inner.listener;
  if (below === undefined) throw new Error('the call below was not started');
  below.onReceiveMetadata(metadata);
  return { call, inner, below, metadata, received };
}
