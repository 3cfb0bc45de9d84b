/** What the calls of one caller may hold, and for how long: counts, shares and times, enforced in one place. */

import type { Clock } from '../clock.js';
import type { VerifiedToken } from '../revocation/verified-tokens.js';
import { networkOf } from '../wire/networks.js';
import type { GuardLimits, LimitName } from './guard-limits.js';

/** The part of the bytes in flight that callers of public methods from unknown networks may use together. */
const UNKNOWN_BYTES_PART = 1 / 4;

/** The part of the bytes in flight that all other callers may use together. */
const KNOWN_BYTES_PART = 3 / 4;

/** The part of the bytes in flight that one caller may use. */
const CALLER_BYTES_PART = 1 / 8;

/**
 * The part of the public calls that may be streams, of all strangers and of one network. The rest is left to short calls,
 * such as health checks and the authentication of services.
 */
const PUBLIC_STREAMS_PART = 1 / 2;

/** A response that was not read for so long makes room for other calls, in milliseconds. */
const UNREAD_MS = 1000;

/** How often callers without calls and tokens are dropped, in milliseconds. */
const FORGET_INTERVAL_MS = 10_000;

/** What one caller holds: a principal, or a network that calls public methods. */
export class Holder {
  calls = 0;
  streams = 0;
  bytes = 0;
  /** Number of cached tokens of the principal. */
  tokens = 0;
  readonly kind: 'user' | 'service' | 'address';

  constructor(kind: Holder['kind']) {
    this.kind = kind;
  }
}

/** A call that holds something. It is in one queue at most. */
export interface HeldCall {
  /** The call has streams of messages, in either direction. */
  readonly isStream: boolean;
  /** The caller sends any number of messages. */
  readonly requestStream: boolean;
  holder: Holder | undefined;
  /** The caller is unknown: it showed no token, and its network has shown none lately. */
  isUnknown: boolean;
  /** The bytes in flight that the call was charged. */
  heldBytes: number;
  queue: CallQueue | undefined;
  previousHeld: HeldCall | undefined;
  nextHeld: HeldCall | undefined;
  heldSinceMs: number;
  /** Ends the call because of a limit. */
  endForLimit(limit: LimitName): void;
}

/** Calls that wait for the same thing, the oldest first: a linked list through the calls, so that it costs next to nothing. */
export class CallQueue {
  first: HeldCall | undefined;
  #last: HeldCall | undefined;

  append(call: HeldCall, nowMs: number): void {
    call.heldSinceMs = nowMs;
    call.queue = this;
    call.previousHeld = this.#last;
    call.nextHeld = undefined;
    if (this.#last === undefined) this.first = call;
    else this.#last.nextHeld = call;
    this.#last = call;
  }

  remove(call: HeldCall): void {
    if (call.previousHeld === undefined) this.first = call.nextHeld;
    else call.previousHeld.nextHeld = call.nextHeld;
    if (call.nextHeld === undefined) this.#last = call.previousHeld;
    else call.nextHeld.previousHeld = call.previousHeld;
    call.previousHeld = undefined;
    call.nextHeld = undefined;
    call.queue = undefined;
  }

  /** The oldest call for which the condition holds. */
  find(matches: (call: HeldCall) => boolean): HeldCall | undefined {
    let call = this.first;
    while (call !== undefined && !matches(call)) call = call.nextHeld;
    return call;
  }
}

/** What the callers of one class hold together. */
interface ClassTotals {
  calls: number;
  streams: number;
  bytes: number;
  readonly bytesMax: number;
  /** Requests that have not arrived in full. */
  readonly requests: CallQueue;
  /** Calls whose response, or a message of it, the peer has no room for. */
  readonly responses: CallQueue;
}

/** What the calls of a process hold at the moment. */
export interface CallLimitsState {
  readonly publicCalls: number;
  readonly bytesInFlight: number;
}

/** The limits on calls of one guard. Counting is synchronous, and allocates only for a new caller. */
export class CallLimits {
  readonly #limits: GuardLimits;
  readonly #clock: Clock;
  readonly #isKnownNetwork: (network: string) => boolean;
  readonly #principals = new Map<string, Holder>();
  readonly #networks = new Map<string, Holder>();
  readonly #known: ClassTotals;
  readonly #unknown: ClassTotals;
  /** Public streams of requests, by their last message. */
  readonly #idle = new CallQueue();
  /** The time of the last sweep. Reading a clock for each call would cost more than the rest. */
  #nowMs: number;
  #forgottenMs = 0;

  constructor(limits: GuardLimits, clock: Clock, isKnownNetwork: (network: string) => boolean) {
    this.#limits = limits;
    this.#clock = clock;
    this.#nowMs = clock.monotonicMs();
    this.#isKnownNetwork = isKnownNetwork;
    const totals = (part: number): ClassTotals => ({
      calls: 0,
      streams: 0,
      bytes: 0,
      bytesMax: limits.bytesInFlight * part,
      requests: new CallQueue(),
      responses: new CallQueue(),
    });
    this.#known = totals(KNOWN_BYTES_PART);
    this.#unknown = totals(UNKNOWN_BYTES_PART);
  }

  state(): CallLimitsState {
    return { publicCalls: this.#unknown.calls, bytesInFlight: this.#known.bytes + this.#unknown.bytes };
  }

  /** Counts a call of a principal. @returns the limit that refuses it; undefined when it may run */
  enterWithToken(call: HeldCall, token: VerifiedToken): LimitName | undefined {
    const holder = (token.holder as Holder | undefined) ?? this.#holderOf(token);
    const isService = holder.kind === 'service';
    const { callsPerService, callsPerUser, streamsPerService, streamsPerUser } = this.#limits;
    if (holder.calls >= (isService ? callsPerService : callsPerUser)) {
      return isService ? 'calls_per_service' : 'calls_per_user';
    }
    if (call.isStream && holder.streams >= (isService ? streamsPerService : streamsPerUser)) {
      return isService ? 'streams_per_service' : 'streams_per_user';
    }
    this.#enter(call, holder, this.#known);
    if (!call.requestStream) this.#known.requests.append(call, this.#nowMs);
    return undefined;
  }

  /**
   * Counts a call of a public method. Where a limit is reached, the oldest call whose request is incomplete makes room,
   * or the oldest whose response the peer has not read for a second: short calls pass, however many others are open.
   *
   * @returns the limit that refuses it; undefined when it may run
   */
  enterPublic(call: HeldCall, address: string): LimitName | undefined {
    const network = networkOf(address);
    const holder = getOrCreate(this.#networks, network, () => new Holder('address'));
    call.isUnknown = !this.#isKnownNetwork(network);
    const { publicCalls, publicCallsPerAddress } = this.#limits;
    const totals = this.#totalsOf(call);
    // A caller may leave its streams open for ever: alone they must not close the methods to the network that it is in.
    if (call.isStream && holder.streams >= publicCallsPerAddress * PUBLIC_STREAMS_PART) {
      return 'public_calls_per_address';
    }
    if (holder.calls >= publicCallsPerAddress) {
      const isOwn = ({ holder: other }: HeldCall): boolean => other === holder;
      if (!this.#makeRoom(totals, 'public_calls_per_address', isOwn)) return 'public_calls_per_address';
    }
    if (call.isUnknown) {
      if (call.isStream && totals.streams >= publicCalls * PUBLIC_STREAMS_PART) return 'public_calls';
      if (totals.calls >= publicCalls && !this.#makeRoom(totals, 'public_calls', () => true))
        return 'public_calls';
    }
    this.#enter(call, holder, totals);
    (call.requestStream ? this.#idle : totals.requests).append(call, this.#nowMs);
    return undefined;
  }

  /** Ends the oldest call that its caller keeps open. @returns whether there was one */
  #makeRoom(totals: ClassTotals, limit: LimitName, matches: (call: HeldCall) => boolean): boolean {
    const incomplete = totals.requests.find(matches);
    if (incomplete !== undefined) {
      incomplete.endForLimit(limit);
      return true;
    }
    const unread = totals.responses.find(matches);
    if (unread === undefined || this.#nowMs - unread.heldSinceMs < UNREAD_MS) return false;
    unread.endForLimit('response_seconds');
    return true;
  }

  #enter(call: HeldCall, holder: Holder, totals: ClassTotals): void {
    call.holder = holder;
    holder.calls += 1;
    totals.calls += 1;
    if (!call.isStream) return;
    holder.streams += 1;
    totals.streams += 1;
  }

  /** A message of a stream has arrived. */
  active(call: HeldCall): void {
    if (call.queue !== this.#idle) return;
    this.#idle.remove(call);
    this.#idle.append(call, this.#clock.monotonicMs());
  }

  /** The request has arrived in full. */
  arrived(call: HeldCall): void {
    call.queue?.remove(call);
    this.charge(call, 0);
  }

  /** The response is complete, and the peer has to read it. */
  answered(call: HeldCall): void {
    call.queue?.remove(call);
    this.#totalsOf(call).responses.append(call, this.#nowMs);
  }

  /** A message of a stream of responses waits until the peer has room for it. A stream of requests is idle meanwhile. */
  sending(call: HeldCall): void {
    if (call.queue !== undefined || call.holder === undefined) return;
    this.#totalsOf(call).responses.append(call, this.#nowMs);
  }

  /** The message has been sent. */
  sent(call: HeldCall): void {
    const { responses } = this.#totalsOf(call);
    if (call.queue === responses) responses.remove(call);
  }

  /**
   * Sets the bytes in flight of a call. Where the class of the caller has none left, its oldest incomplete request with
   * bytes makes room.
   *
   * @returns the limit that was reached; the call must end
   */
  charge(call: HeldCall, bytes: number): LimitName | undefined {
    const { holder } = call;
    if (holder === undefined) return undefined;
    const more = bytes - call.heldBytes;
    const totals = this.#totalsOf(call);
    if (holder.bytes + more > this.#limits.bytesInFlight * CALLER_BYTES_PART) return 'bytes_in_flight';
    while (totals.bytes + more > totals.bytesMax) {
      const oldest = totals.requests.find((other) => other !== call && other.heldBytes > 0);
      if (oldest === undefined) return 'bytes_in_flight';
      oldest.endForLimit('bytes_in_flight');
    }
    call.heldBytes = bytes;
    holder.bytes += more;
    totals.bytes += more;
    return undefined;
  }

  /** The call has ended. May be called twice. */
  leave(call: HeldCall): void {
    const { holder } = call;
    call.queue?.remove(call);
    if (holder === undefined) return;
    this.charge(call, 0);
    const totals = this.#totalsOf(call);
    call.holder = undefined;
    holder.calls -= 1;
    totals.calls -= 1;
    if (!call.isStream) return;
    holder.streams -= 1;
    totals.streams -= 1;
  }

  /** Ends the calls that have taken too long, and forgets callers that hold nothing. */
  sweep(): void {
    const nowMs = this.#clock.monotonicMs();
    this.#nowMs = nowMs;
    const { requestMs, publicIdleMs, responseMs } = this.#limits;
    for (const { requests, responses } of [this.#known, this.#unknown]) {
      endBefore(requests, nowMs - requestMs, 'request_seconds');
      endBefore(responses, nowMs - responseMs, 'response_seconds');
    }
    endBefore(this.#idle, nowMs - publicIdleMs, 'public_idle_seconds');
    if (nowMs - this.#forgottenMs < FORGET_INTERVAL_MS) return;
    this.#forgottenMs = nowMs;
    for (const holders of [this.#principals, this.#networks]) {
      for (const [key, { calls, tokens }] of holders) if (calls === 0 && tokens === 0) holders.delete(key);
    }
  }

  #totalsOf(call: HeldCall): ClassTotals {
    return call.isUnknown ? this.#unknown : this.#known;
  }

  #holderOf(token: VerifiedToken): Holder {
    const { issuer, subject, kind } = token.claims;
    const holder = getOrCreate(
      this.#principals,
      JSON.stringify([issuer, subject, kind]),
      () => new Holder(kind === 'SERVICE' ? 'service' : 'user'),
    );
    if (token.indexed) {
      holder.tokens += 1;
      token.holder = holder;
    }
    return holder;
  }
}

function endBefore(queue: CallQueue, untilMs: number, limit: LimitName): void {
  for (let call = queue.first; call !== undefined && call.heldSinceMs <= untilMs; call = queue.first) {
    call.endForLimit(limit);
    // A call that does not leave by itself must not hold up the others.
    if (call.queue === queue) queue.remove(call);
  }
}

function getOrCreate(holders: Map<string, Holder>, key: string, create: () => Holder): Holder {
  let holder = holders.get(key);
  if (holder === undefined) {
    holder = create();
    holders.set(key, holder);
  }
  return holder;
}
