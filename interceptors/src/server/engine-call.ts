/** A call of an engine: its user has a wire, and asks and is asked. */

import type { GuardErrorCode, ServiceError } from '../errors.js';
import { type ReadyStatus, readyStatusOf } from '../wire/ready-status.js';
import type { Admission } from './admission.js';
import { type CallEngine, DecidedCall } from './decided-call.js';
import type {
  CallHandler,
  Decision,
  EngineCall,
  EngineCaller,
  MethodKind,
  VerifiedCaller,
} from './decision.js';
import type { LimitName } from './guard-limits.js';
import { limitRefusal } from './refusals.js';

/** A method that no schema describes may have streams, which may last and are counted. */
const ANY_KIND: MethodKind = { requestStream: true, responseStream: true };

/** One object for each call that the engine decides. */
export class DecidedEngineCall extends DecidedCall implements EngineCall {
  readonly method: MethodKind | undefined;
  readonly #caller: EngineCaller;
  #handler: CallHandler | undefined;
  /** The status with which the engine has ended the call. */
  #ending: ReadyStatus | undefined;

  constructor(path: string, method: MethodKind | undefined, engine: CallEngine, caller: EngineCaller) {
    super(path, method ?? ANY_KIND, engine);
    this.method = method;
    this.#caller = caller;
  }

  /** Begins the call, unless it is refused. */
  begin(admission: Admission): Decision {
    const entered = this.enter(admission);
    if (typeof entered !== 'number') return { kind: 'refused', status: readyStatusOf(entered) };
    if (admission.kind === 'observed') {
      return { kind: 'observed', call: this, reason: admission.reason, requestBytesMax: entered };
    }
    if (this.verified === undefined) return { kind: 'public', call: this, requestBytesMax: entered };
    // What is admitted has a verified token, and so a caller.
    return { kind: 'admitted', call: this as EngineCall & VerifiedCaller, requestBytesMax: entered };
  }

  /** The same after the token was verified. In the turns since then its revocation may have arrived. */
  beginLate(admission: Admission): Decision {
    const decision = this.begin(admission);
    // A refused call has no verified token, and so no denial.
    const denial = this.denial();
    return denial === undefined ? decision : { kind: 'refused', status: denial };
  }

  // EngineCall.

  get token(): string | undefined {
    return this.verified?.text;
  }

  denial(): ReadyStatus | undefined {
    if (this.#ending !== undefined || this.isFinished) return this.#ending;
    const reason = this.denialReason();
    if (reason === undefined) return undefined;
    // Whoever asks ends the call itself.
    this.#handler = undefined;
    this.cut(reason);
    return this.#ending;
  }

  link(handler: CallHandler): void {
    if (this.#ending !== undefined) handler.cut(this.#ending);
    else if (!this.isFinished) this.#handler = handler;
  }

  unlink(): void {
    if (this.isFinished) return;
    this.isFinished = true;
    this.#handler = undefined;
    this.leave();
  }

  requestActive(): void {
    this.engine.limits.active(this);
  }

  requestEnded(): void {
    this.engine.limits.arrived(this);
  }

  answered(): void {
    if (this.method?.responseStream !== false) return;
    this.isAnswered = true;
    this.sent();
  }

  sending(): void {
    this.engine.limits.sending(this);
  }

  sent(): void {
    this.engine.limits.sent(this);
  }

  exceeded(limit: LimitName): ReadyStatus {
    this.#handler = undefined;
    this.endForLimit(limit);
    return this.#ending ?? readyStatusOf(limitRefusal(limit));
  }

  // DecidedCall.

  protected close(error: ServiceError<GuardErrorCode>): void {
    const handler = this.#handler;
    const ending = readyStatusOf(error);
    this.isClosed = true;
    this.#ending = ending;
    this.unlink();
    handler?.cut(ending);
  }

  protected drop(error: ServiceError<GuardErrorCode>): void {
    this.close(error);
  }

  protected stop(): void {
    // The handler of the call has been asked to end it.
  }

  // Caller.

  get address(): string {
    return this.#caller.address;
  }

  get isPrivate(): boolean {
    return this.#caller.isPrivate;
  }

  get certificateThumbprint(): string | undefined {
    return this.#caller.certificateThumbprint;
  }

  getPeer(): string {
    return this.#caller.peer;
  }

  retireConnection(): void {
    this.#caller.retireConnection();
  }
}
