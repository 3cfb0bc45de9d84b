/** The oracle of the drill: it records revocations and outcomes, and finds violations of the promise. */

/** Maximum number of violations whose details are stored; all are counted. */
const DETAILS_MAX = 200;

/** Longest duration of a call that counts as served, in milliseconds. */
const SERVED_WITHIN_MS = 1_000;

/** How a call ended, as its caller saw it. */
export type Outcome =
  /** The handler ran, or a message of a stream passed. */
  | { readonly kind: 'admitted' }
  /** UNAUTHENTICATED. */
  | { readonly kind: 'refused'; readonly reason: string }
  /** UNAVAILABLE; `reason` is empty when it did not come from a server. */
  | { readonly kind: 'unavailable'; readonly reason: string }
  /** No response before the deadline. */
  | { readonly kind: 'unanswered' }
  | { readonly kind: 'other'; readonly what: string };

/** Kinds of violations. */
export type ViolationKind =
  /** A revoked token was admitted after the bound. */
  | 'ADMITTED_LATE'
  /** A token was admitted by an instance that had refused it as revoked before. */
  | 'ADMITTED_AGAIN'
  /** A revoked token was admitted at the end of a round, without any fault: its revocation was lost. */
  | 'REVOCATION_LOST'
  /** A refusal that is neither UNAUTHENTICATED nor UNAVAILABLE. */
  | 'WRONG_REFUSAL'
  /** A token that was not revoked was refused as revoked. */
  | 'REVOKED_BY_NOBODY'
  /** A good token was refused as invalid. */
  | 'GOOD_TOKEN_REFUSED'
  /** A fault that must not cost availability made a lease run out. */
  | 'SERVICE_LOST'
  /** A method with ON_STALE_ALLOW refused because the list was stale. */
  | 'READING_LOST'
  /** A stream of a revoked token was still open at the end of a round. */
  | 'STREAM_LEFT_OPEN'
  /** Not every instance served again in time after the fault was healed. */
  | 'NOT_BACK'
  /** An instance decided otherwise than the tables of the specification. */
  | 'OTHER_DECISION';

/** One violation. */
export interface Violation {
  readonly kind: ViolationKind;
  readonly round: number;
  readonly fault: string;
  readonly detail: string;
}

/** A token of the drill, and its revocation. */
export interface Credential {
  readonly name: string;
  readonly token: string;
  /** When the first Revoke that hits it was sent, by the drill's clock. */
  revokeSentMs?: number;
  /** When the first Revoke that hits it returned OK, by the drill's clock. */
  revokedMs?: number;
}

/** The outcome of a call, or a message of a stream. */
export interface Observation {
  readonly credential: Credential;
  readonly instance: string;
  readonly method: string;
  /** The earliest moment of the admission check of this call or message. */
  readonly notBeforeMs: number;
  readonly endedMs: number;
  readonly outcome: Outcome;
  /** The method has ON_STALE_ALLOW, so the bound does not hold for it. */
  readonly allowStale?: boolean;
  /** A message of a stream that was admitted before. */
  readonly isMessage?: boolean;
}

/** Result of one round. */
export interface RoundFigures {
  readonly round: number;
  readonly fault: string;
  revocations: number;
  checks: number;
  violations: number;
  maxLateMs: number;
  /** Longest time without service of an instance, in milliseconds. */
  unavailableMs: number;
  /** Time from healing until every instance served again, in milliseconds. */
  backAfterMs: number;
}

interface Service {
  readonly sentMs: number;
  readonly isGood: boolean;
}

/** Checks every outcome as it arrives. It has no process, network or clock. */
export class RevocationOracle {
  readonly violations: Violation[] = [];
  readonly rounds: RoundFigures[] = [];
  readonly counts = new Map<ViolationKind, number>();
  readonly boundMs: number;
  readonly #refusedAt = new WeakMap<Credential, Map<string, number>>();
  #services = new Map<string, Service[]>();
  #round: RoundFigures = newRound(0, 'none');
  #mayLoseService = true;
  readonly #wasStarved: (instance: string, atMs: number) => boolean;

  /** Calls refused as stale by an instance that waited for a processor, without a fault as cause. */
  starved = 0;

  /**
   * @param boundMs - after this many milliseconds a revocation must hold everywhere
   * @param wasStarved - whether an instance waited too long for a processor, shortly before that moment
   */
  constructor(boundMs: number, wasStarved: (instance: string, atMs: number) => boolean = () => false) {
    this.boundMs = boundMs;
    this.#wasStarved = wasStarved;
  }

  /** Begins a round. @param mayLoseService - whether leases may run out */
  beginRound(round: number, fault: string, mayLoseService: boolean): RoundFigures {
    this.#round = newRound(round, fault);
    this.rounds.push(this.#round);
    this.#services = new Map();
    this.#mayLoseService = mayLoseService;
    return this.#round;
  }

  /** From now until the end of the round leases may run out, whatever the fault. */
  allowServiceLoss(): void {
    this.#mayLoseService = true;
  }

  /** Sums the time without service of the instances. */
  endRound(): void {
    const lost = [...this.#services.values()].map(unavailableMsOf);
    this.#round.unavailableMs = Math.max(0, ...lost);
  }

  /** Records that a Revoke which hits these tokens is about to be sent. */
  revoking(credentials: readonly Credential[], atMs: number): void {
    for (const credential of credentials) credential.revokeSentMs ??= atMs;
  }

  /** Records that it returned OK. */
  revoked(credentials: readonly Credential[], atMs: number): void {
    this.#round.revocations += 1;
    for (const credential of credentials) credential.revokedMs ??= atMs;
  }

  /** Records a violation that was found elsewhere. */
  report(kind: ViolationKind, detail: string): void {
    const { round, fault } = this.#round;
    this.#round.violations += 1;
    this.counts.set(kind, (this.counts.get(kind) ?? 0) + 1);
    if (this.violations.length < DETAILS_MAX) this.violations.push({ kind, round, fault, detail });
  }

  /** Checks one outcome or one message. */
  judge(seen: Observation): void {
    this.#round.checks += 1;
    if (seen.outcome.kind === 'other') {
      this.report('WRONG_REFUSAL', `${describe(seen)} was answered ${seen.outcome.what}`);
    }
    const { revokeSentMs } = seen.credential;
    // A call that ended before Revoke was sent had a good token.
    if (revokeSentMs === undefined || seen.endedMs < revokeSentMs) this.#judgeGood(seen);
    else if (seen.credential.revokedMs !== undefined) this.#judgeRevoked(seen, seen.credential.revokedMs);
  }

  /** Records the outcome of a good token's call, from which the time without service is computed. */
  serve(instance: string, sentMs: number, endedMs: number, outcome: Outcome): void {
    const services = this.#services.get(instance) ?? [];
    this.#services.set(instance, services);
    services.push({ sentMs, isGood: isService(outcome, sentMs, endedMs) });
  }

  #judgeGood(seen: Observation): void {
    const { outcome } = seen;
    if (outcome.kind === 'refused') {
      const kind = outcome.reason === 'TOKEN_REVOKED' ? 'REVOKED_BY_NOBODY' : 'GOOD_TOKEN_REFUSED';
      this.report(kind, `${describe(seen)} was answered ${outcome.reason}`);
    }
    if (outcome.kind !== 'unavailable' || outcome.reason !== 'REVOCATION_STATE_STALE') return;
    if (this.#mayLoseService) return;
    // Without processor time no list stays current; the fault is not the cause.
    if (this.#wasStarved(seen.instance, seen.endedMs)) this.starved += 1;
    else this.report('SERVICE_LOST', `${describe(seen)} was refused as stale`);
  }

  #judgeRevoked(seen: Observation, revokedMs: number): void {
    const { credential, instance, outcome, notBeforeMs, endedMs } = seen;
    const refused = this.#refusedAt.get(credential) ?? new Map<string, number>();
    this.#refusedAt.set(credential, refused);
    if (outcome.kind === 'refused' && outcome.reason === 'TOKEN_REVOKED') {
      refused.set(instance, Math.min(endedMs, refused.get(instance) ?? Number.POSITIVE_INFINITY));
    }
    if (outcome.kind !== 'admitted') return;
    const lateMs = notBeforeMs - revokedMs;
    if (seen.allowStale !== true) {
      this.#round.maxLateMs = Math.max(this.#round.maxLateMs, lateMs);
      if (lateMs > this.boundMs) {
        this.report('ADMITTED_LATE', `${describe(seen)} was admitted ${lateMs.toFixed(0)} ms after Revoke`);
      }
    }
    const refusedMs = refused.get(instance);
    if (refusedMs !== undefined && notBeforeMs > refusedMs && seen.isMessage !== true) {
      this.report('ADMITTED_AGAIN', `${describe(seen)} was admitted after having been refused as revoked`);
    }
  }
}

/** Time without service of an instance: from each failed call to the next served one. */
function unavailableMsOf(services: readonly Service[]): number {
  let sum = 0;
  let sinceMs: number | undefined;
  for (const { sentMs, isGood } of services.toSorted((a, b) => a.sentMs - b.sentMs)) {
    if (!isGood) sinceMs ??= sentMs;
    else if (sinceMs !== undefined) {
      sum += sentMs - sinceMs;
      sinceMs = undefined;
    }
  }
  return sum;
}

/** Whether an outcome counts as served. */
export function isService(outcome: Outcome, sentMs: number, endedMs: number): boolean {
  return outcome.kind === 'admitted' && endedMs - sentMs <= SERVED_WITHIN_MS;
}

function newRound(round: number, fault: string): RoundFigures {
  return {
    round,
    fault,
    revocations: 0,
    checks: 0,
    violations: 0,
    maxLateMs: 0,
    unavailableMs: 0,
    backAfterMs: 0,
  };
}

function describe({ credential, instance, method, isMessage }: Observation): string {
  return `${isMessage === true ? 'a message of ' : ''}${method} on ${instance} with ${credential.name}`;
}
