/**
 * The guards that keep the promise, each of which the simulation can leave out. Production has no such switches: a
 * guard is left out by overriding its code or changing its input.
 */

import type { TokenClaims } from '@portcullis/guard';
import {
  type BroadcastOutcome,
  Feed,
  type Moment,
  RevocationList,
  type SyncOutcome,
  type SyncTicket,
} from '@portcullis/guard/internal';
import type { Broadcast, SyncResponse } from '../../proto/gen/portcullis/revocation/v1/revocation.js';

/** The guards. */
export const GUARDS = [
  'lease',
  'lease-start',
  'applied',
  'entry-id',
  'fence',
  'shared-read',
  'hydration',
  'recheck',
  'retention',
  'session-generation',
  'signature',
  'epoch',
  'generation',
  'same-list',
  'known-epochs',
  'clock-rises',
  'stored-lifetime',
  'older-lifetimes',
] as const;

export type GuardName = (typeof GUARDS)[number];

/** The oracle that detects the missing guard. */
export const NOTICED_BY: { readonly [G in GuardName]: 'late' | 'innocent' | 'unnoticed' } = {
  lease: 'late',
  'lease-start': 'late',
  applied: 'late',
  'entry-id': 'late',
  fence: 'late',
  'shared-read': 'late',
  hydration: 'late',
  recheck: 'late',
  retention: 'late',
  'session-generation': 'late',
  signature: 'innocent',
  epoch: 'innocent',
  generation: 'innocent',
  'same-list': 'late',
  'known-epochs': 'unnoticed',
  'clock-rises': 'late',
  'stored-lifetime': 'late',
  'older-lifetimes': 'late',
};

type FeedOptions = ConstructorParameters<typeof Feed>[0];

/** A feed that exposes the epochs that it follows and has followed. */
export class WatchedFeed extends Feed {
  followedEpoch = '';
  readonly followedEpochs = new Set<string>();

  override applySyncResponse(ticket: SyncTicket, answer: SyncResponse, installKeys: () => void): SyncOutcome {
    const outcome = super.applySyncResponse(ticket, answer, installKeys);
    if (outcome !== 'outdated') {
      this.followedEpoch = answer.epoch.toString('hex');
      this.followedEpochs.add(this.followedEpoch);
    }
    return outcome;
  }
}

/** Creates the feed of an instance, without the guard if it is one of the feed's. */
export function createFeed(
  options: FeedOptions,
  without: GuardName | undefined,
  now: () => Moment,
): WatchedFeed {
  switch (without) {
    case 'lease':
      return new LeaselessFeed(options);
    case 'lease-start':
      return new LeaseFromAnswerFeed(options, now);
    case 'applied':
      return new BroadcastAppliesFeed(options);
    case 'hydration':
      return new PullAppliesFeed(options);
    case 'recheck':
      return new OnceCheckedFeed(options);
    case 'epoch':
      return new AnyEpochFeed(options);
    case 'same-list':
      return new AnyListFeed(options);
    case 'clock-rises':
      return new RiselessFeed(options);
    default:
      return new WatchedFeed(options);
  }
}

/** A complete list is trusted for ever. */
class LeaselessFeed extends WatchedFeed {
  override leaseLeftMs(): number {
    return this.hydrated ? Number.POSITIVE_INFINITY : 0;
  }
}

/** The lease is counted from the response. */
class LeaseFromAnswerFeed extends WatchedFeed {
  readonly #now: () => Moment;

  constructor(options: FeedOptions, now: () => Moment) {
    super(options);
    this.#now = now;
  }

  override applySyncResponse(ticket: SyncTicket, answer: SyncResponse, installKeys: () => void): SyncOutcome {
    return super.applySyncResponse({ ...ticket, sentAt: this.#now() }, answer, installKeys);
  }
}

/** A feed whose requests may claim more applied entries than it has. */
abstract class BoastfulFeed extends WatchedFeed {
  #boast: { readonly epoch: Buffer; readonly applied: bigint; readonly entryIdAtApplied: Buffer } | undefined;

  override createSyncRequest(sentAt: Moment): SyncTicket {
    const ticket = super.createSyncRequest(sentAt);
    const boast = this.#boast;
    if (boast === undefined || !boast.epoch.equals(ticket.request.epoch) || boast.applied <= this.applied)
      return ticket;
    return { ...ticket, request: { ...ticket.request, ...boast } };
  }

  protected boast(epoch: Buffer, applied: bigint, entryIdAtApplied: Buffer): void {
    if (this.#boast?.epoch.equals(epoch) && this.#boast.applied >= applied) return;
    this.#boast = { epoch, applied, entryIdAtApplied };
  }
}

/** A broadcast moves `applied`. */
class BroadcastAppliesFeed extends BoastfulFeed {
  override applyBroadcast(broadcast: Broadcast): BroadcastOutcome {
    const heard = super.applyBroadcast(broadcast);
    const last = broadcast.entries.at(-1);
    if (heard.accepted && last !== undefined) this.boast(broadcast.epoch, last.sequence, last.entryId);
    return heard;
  }
}

/** The beginning of a Pull moves `applied`, not its end. */
class PullAppliesFeed extends BoastfulFeed {
  override applySyncResponse(ticket: SyncTicket, answer: SyncResponse, installKeys: () => void): SyncOutcome {
    const outcome = super.applySyncResponse(ticket, answer, installKeys);
    if (outcome === 'pull') this.boast(answer.epoch, answer.head, answer.entryIdAtHead);
    return outcome;
  }
}

/** A token is looked up in the list when its verification begins, and not when it ends. */
export class OnceCheckedFeed extends WatchedFeed {
  readonly #verdicts = new Map<string, boolean>();

  override get list(): RevocationList {
    return new RememberedList(super.list, this.#verdicts);
  }

  /** Called when the verification of a token begins. */
  verificationBegins(claims: TokenClaims): void {
    this.#verdicts.set(claims.tokenId, super.list.revokes(claims));
  }
}

class RememberedList extends RevocationList {
  readonly #list: RevocationList;
  readonly #verdicts: ReadonlyMap<string, boolean>;

  constructor(list: RevocationList, verdicts: ReadonlyMap<string, boolean>) {
    super();
    this.#list = list;
    this.#verdicts = verdicts;
  }

  override revokes(claims: TokenClaims): boolean {
    return this.#verdicts.get(claims.tokenId) ?? this.#list.revokes(claims);
  }
}

/** Broadcasts of other epochs are applied. */
class AnyEpochFeed extends WatchedFeed {
  override applyBroadcast(broadcast: Broadcast): BroadcastOutcome {
    return super.applyBroadcast({ ...broadcast, epoch: Buffer.from(this.followedEpoch, 'hex') });
  }
}

/** Applies a response to the current list when its epoch equals the request's, even if the request described another list. */
class AnyListFeed extends WatchedFeed {
  override applySyncResponse(ticket: SyncTicket, answer: SyncResponse, installKeys: () => void): SyncOutcome {
    if (!ticket.request.epoch.equals(answer.epoch))
      return super.applySyncResponse(ticket, answer, installKeys);
    const present = (): RevocationList => this.list;
    // Read late: applying the response may begin another list.
    const anyList: SyncTicket = {
      ...ticket,
      get list() {
        return present();
      },
    };
    return super.applySyncResponse(anyList, answer, installKeys);
  }
}

/** Only the current readings of both clocks count, not their changes in between. */
class RiselessFeed extends WatchedFeed {
  #sentAt: Moment = { monotonicMs: 0, wallMs: 0 };

  override applySyncResponse(ticket: SyncTicket, answer: SyncResponse, installKeys: () => void): SyncOutcome {
    const outcome = super.applySyncResponse(ticket, answer, installKeys);
    if (outcome === 'granted') this.#sentAt = ticket.sentAt;
    return outcome;
  }

  override leaseLeftMs(monotonicMs: number, wallMs: number): number {
    const { monotonicMs: sentMonotonicMs, wallMs: sentWallMs } = this.#sentAt;
    if (this.leaseLengthMs === 0 || wallMs < sentWallMs) return 0;
    return this.leaseLengthMs - Math.max(monotonicMs - sentMonotonicMs, wallMs - sentWallMs);
  }
}
