/** The judge of the drill: what was revoked when, what was answered to whom, and what of that breaks the promise. */

/** Most violations whose details are kept; all of them are counted. */
const DETAILS_MAX = 200;

/** How long a call may take and still count as service, in milliseconds. */
const SERVED_WITHIN_MS = 1_000;

/** How a call ended, as its caller saw it. */
export type Outcome =
  /** The handler ran, or a message of a stream came through. */
  | { readonly kind: 'admitted' }
  /** UNAUTHENTICATED. */
  | { readonly kind: 'refused'; readonly reason: string }
  /** UNAVAILABLE; `reason` is empty when no server said so. */
  | { readonly kind: 'unavailable'; readonly reason: string }
  /** Nothing came before the caller gave up. */
  | { readonly kind: 'unanswered' }
  | { readonly kind: 'other'; readonly what: string };

/** What breaks the promise. */
export type ViolationKind =
  /** A revoked token was admitted after the bound. */
  | 'ADMITTED_LATE'
  /** A token was admitted by an instance that had refused it as revoked before. */
  | 'ADMITTED_AGAIN'
  /** A revoked token was not refused at the end of a round, when everything was whole: its revocation was lost. */
  | 'REVOCATION_LOST'
  /** A refusal that is neither UNAUTHENTICATED nor UNAVAILABLE. */
  | 'WRONG_REFUSAL'
  /** A token that nobody revoked was refused as revoked. */
  | 'REVOKED_BY_NOBODY'
  /** A good token was refused as a bad one. */
  | 'GOOD_TOKEN_REFUSED'
  /** A fault that may cost no service made an instance distrust its list. */
  | 'SERVICE_LOST'
  /** A method that goes on when the list is stale did not. */
  | 'READING_LOST'
  /** A stream of a revoked token was still open at the end of a round. */
  | 'STREAM_LEFT_OPEN'
  /** Not everything was served again in time after the fault was healed. */
  | 'NOT_BACK';

/** One violation. */
export interface Violation {
  readonly kind: ViolationKind;
  readonly round: number;
  readonly fault: string;
  readonly detail: string;
}

/** A token that the drill uses, and what is known of its revocation. */
export interface Credential {
  readonly name: string;
  readonly token: string;
  /** The drill's clock when the first Revoke that hits it was sent. */
  revokeSentMs?: number;
  /** The drill's clock when the first Revoke that hits it had returned OK. */
  revokedMs?: number;
}

/** One answer, or one message of a stream. */
export interface Observation {
  readonly credential: Credential;
  readonly instance: string;
  readonly method: string;
  /** No admission check of this call, or of this message, can have come before this. */
  readonly notBeforeMs: number;
  readonly endedMs: number;
  readonly outcome: Outcome;
  /** The method goes on while the list is stale, so that the bound is not promised for it. */
  readonly allowStale?: boolean;
  /** It is a message of a stream that was admitted before, not a call of its own. */
  readonly isMessage?: boolean;
}

/** What one round came to. */
export interface RoundFigures {
  readonly round: number;
  readonly fault: string;
  revocations: number;
  checks: number;
  violations: number;
  maxLateMs: number;
  /** The worst instance's time without service. */
  unavailableMs: number;
  /** From healing until everything was served again. */
  backAfterMs: number;
}

interface Service {
  readonly sentMs: number;
  readonly isGood: boolean;
}

/** Judges every answer as it comes. Knows no process, no network and no clock. */
export class Ledger {
  readonly violations: Violation[] = [];
  readonly rounds: RoundFigures[] = [];
  readonly counts = new Map<ViolationKind, number>();
  readonly boundMs: number;
  readonly #refusedAt = new WeakMap<Credential, Map<string, number>>();
  #services = new Map<string, Service[]>();
  #round: RoundFigures = newRound(0, 'none');
  #mayLoseService = true;
  readonly #wasStarved: (instance: string, atMs: number) => boolean;

  /** Calls refused as stale by an instance that had no processor, of which no fault was the cause. */
  starved = 0;

  /**
   * @param boundMs - after this many milliseconds a revocation must hold everywhere
   * @param wasStarved - whether an instance had to wait for a processor too long, shortly before that moment
   */
  constructor(boundMs: number, wasStarved: (instance: string, atMs: number) => boolean = () => false) {
    this.boundMs = boundMs;
    this.#wasStarved = wasStarved;
  }

  /** Begins a round. @param mayLoseService - whether instances may come to distrust their lists */
  beginRound(round: number, fault: string, mayLoseService: boolean): RoundFigures {
    this.#round = newRound(round, fault);
    this.rounds.push(this.#round);
    this.#services = new Map();
    this.#mayLoseService = mayLoseService;
    return this.#round;
  }

  /** Adds up what the round has cost the instances. */
  endRound(): void {
    const lost = [...this.#services.values()].map(unavailableMsOf);
    this.#round.unavailableMs = Math.max(0, ...lost);
  }

  /** Notes that a Revoke which hits these is about to be sent. */
  revoking(credentials: readonly Credential[], atMs: number): void {
    for (const credential of credentials) credential.revokeSentMs ??= atMs;
  }

  /** Notes that it has returned OK. */
  revoked(credentials: readonly Credential[], atMs: number): void {
    this.#round.revocations += 1;
    for (const credential of credentials) credential.revokedMs ??= atMs;
  }

  /** Notes that a violation was found by other means. */
  report(kind: ViolationKind, detail: string): void {
    const { round, fault } = this.#round;
    this.#round.violations += 1;
    this.counts.set(kind, (this.counts.get(kind) ?? 0) + 1);
    if (this.violations.length < DETAILS_MAX) this.violations.push({ kind, round, fault, detail });
  }

  /** Judges one answer or one message. */
  judge(seen: Observation): void {
    this.#round.checks += 1;
    if (seen.outcome.kind === 'other') {
      this.report('WRONG_REFUSAL', `${describe(seen)} was answered ${seen.outcome.what}`);
    }
    const { revokeSentMs } = seen.credential;
    // What had ended before anybody asked for the revocation was the answer to a good token.
    if (revokeSentMs === undefined || seen.endedMs < revokeSentMs) this.#judgeGood(seen);
    else if (seen.credential.revokedMs !== undefined) this.#judgeRevoked(seen, seen.credential.revokedMs);
  }

  /** Notes how a good token's call fared, of which an instance's time without service is made up. */
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
    // Without processor time no list can be kept up to date: that says nothing about the fault.
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

/** How long an instance was without service: from each call that failed to the next that did not. */
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

/** Whether an answer counts as service. */
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
