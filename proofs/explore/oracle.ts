/**
 * What must hold in every state. It follows commits, losses and time, and asks the real admission whether a call would be
 * admitted now; it does not use sequences or lists, except where a promise is about them.
 */

import type { Feed, VerifiedToken } from '@portcullis/guard/internal';
import { TRUSTED } from './cache-model.js';
import { kidOf } from './entries.js';
import { LATER_MS, type Present } from './identifiers.js';
import { Approved } from './memo.js';
import type { Model } from './model.js';
import type { ExposedAdmissions } from './protocol.js';
import { FAULTS, type State } from './state.js';
import { entryName } from './wording.js';

/** Judges the states of one world. */
export class Oracle {
  readonly #model: Model;
  readonly #admissions: ExposedAdmissions;
  readonly #approved: Approved;
  #present: Present = { databaseMs: 0, monotonicMs: 0, wallMs: 0 };

  constructor(model: Model) {
    this.#model = model;
    this.#approved = new Approved(model.packing);
    this.#admissions = new model.protocol.Admissions({
      issuer: '',
      audience: '',
      clock: {
        monotonicMs: () => this.#present.monotonicMs + LATER_MS,
        wallMs: () => this.#present.wallMs + LATER_MS,
      },
      feed: model.instance.mirror.create(),
      trusted: TRUSTED,
      onTokenInvalid: () => {},
    });
  }

  /** The violation in a state; undefined when there is none. */
  violationOf(state: State): string | undefined {
    return this.#approved.violationOf(state, (whole) => this.#judge(whole));
  }

  #judge(state: State): string | undefined {
    const fault = faultOf(state);
    if (fault !== undefined) return fault;
    if (state.installed === 0) return undefined;
    const model = this.#model;
    this.#present = model.instance.present(state);
    // Always made from the state: a look must not change a feed that lives on.
    const feed = model.instance.mirror.restore(state, this.#present);
    this.#admissions._feed = feed;
    model.instance.cache?.load(state, feed, this.#present);
    const kid = kidOf(state.keys[state.installed - 1]?.signer ?? 0);
    this.#admissions._keys = { has: (keyId) => keyId === kid };
    return (
      this.#lateEntry(state) ??
      this.#receipt(state) ??
      this.#lateEpoch(state) ??
      this.#unnoticed(state) ??
      this.#innocent(state, feed) ??
      (model.world.stale === true ? this.#stale(state) : undefined)
    );
  }

  #admits(token: VerifiedToken, allowStale = false): boolean {
    return this.#admissions.denialReason(token, allowStale) === undefined;
  }

  /** A call with a token of an epoch is admitted, cached or not. */
  #admitsOf(state: State, epoch: number): boolean {
    return (
      this.#admits(this.#model.entries.plainToken(state, epoch)) ||
      this.#model.instance.cache?.admits(state, 'EPOCH', epoch) === true
    );
  }

  /** A call with a revoked token is admitted after the bound. */
  #lateEntry(state: State): string | undefined {
    for (const [index, { dueIn, lost }] of state.dues.entries()) {
      if (state.entries[index]?.target !== index || dueIn > 0 || lost) continue;
      const isAdmitted =
        this.#admits(this.#model.entries.revokedToken(state, index, this.#present)) ||
        this.#model.instance.cache?.admits(state, 'ENTRY', index) === true;
      if (!isAdmitted) continue;
      return `late: a call with the token that ${entryName(index)} revokes is admitted after the bound`;
    }
    return undefined;
  }

  /** A call is admitted although a receipt states that the instance enforces the revocation. */
  #receipt(state: State): string | undefined {
    if (state.receipts === undefined) return undefined;
    const confirmed = this.#model.receipts.confirmed(state);
    if (confirmed === undefined || state.dues[confirmed.entry]?.lost === true) return undefined;
    const { entry, why } = confirmed;
    if (!this.#admits(this.#model.entries.revokedToken(state, entry, this.#present))) return undefined;
    return `receipt: a call with the token that ${entryName(entry)} revokes is admitted, and ${why}`;
  }

  /** A call with a token of an epoch that is over is admitted after the bound. */
  #lateEpoch(state: State): string | undefined {
    for (let opened = state.epochs.length - 1; opened > 0; opened -= 1) {
      const epoch = state.epochs[opened];
      if (epoch === undefined || epoch.lost > 0 || epoch.dueIn > 0) continue;
      for (let before = 0; before < opened; before += 1) {
        if (this.#admitsOf(state, before)) {
          return `late: a call with a token of epoch ${before} is admitted after the bound`;
        }
      }
      return undefined;
    }
    return undefined;
  }

  /** The instance admits calls although it has followed an epoch that the database lost, and none was opened since. */
  #unnoticed(state: State): string | undefined {
    for (const [index, epoch] of state.epochs.entries()) {
      if (epoch.lost === 0 || epoch.lossDueIn > 0 || (state.followed & (1 << index)) === 0) continue;
      const isOver = state.epochs.some((later, place) => place >= epoch.lost - 1 && later.lost === 0);
      if (isOver) continue;
      for (let other = 0; other < state.epochs.length; other += 1) {
        if (this.#admitsOf(state, other)) {
          return `unnoticed: a call is admitted although the instance has followed epoch ${index}, which the database lost`;
        }
      }
    }
    return undefined;
  }

  /** A token that was never revoked is rejected as revoked. */
  #innocent(state: State, feed: Feed): string | undefined {
    const { epoch } = state.database;
    if (state.feed.epoch !== epoch + 1) return undefined;
    const isUnsettled =
      state.entries.some((entry, index) => entry.epoch === epoch && state.dues[index]?.lost === true) ||
      state.epochs.some(({ lost }) => lost > 0 && lost - 1 > epoch);
    if (isUnsettled) return undefined;
    const signer = state.keys[state.database.keys];
    const isSigner = signer?.signer === state.keys.findIndex((keys) => keys.epoch === epoch);
    if (isSigner && this.#model.instance.cache?.isFlagged(state, 'EPOCH', epoch) === true) {
      return 'innocent: a cached token of the present epoch is rejected as revoked';
    }
    if (!feed.list.revokes(this.#model.entries.freshToken(state).claims)) return undefined;
    return 'innocent: a new token is rejected as revoked';
  }

  /** What holds for methods with ON_STALE_ALLOW: only the lease is waived. */
  #stale(state: State): string | undefined {
    for (const [index, { target, epoch, sequence }] of state.entries.entries()) {
      if (!this.#admits(this.#model.entries.revokedToken(state, index, this.#present), true)) continue;
      if (target === index && (state.rejected & (1 << index)) !== 0) {
        return `stale: a call with the token that ${entryName(index)} revokes is admitted after it was rejected once`;
      }
      if (
        state.dues[index]?.lost === false &&
        epoch + 1 === state.feed.epoch &&
        sequence <= state.feed.sequence
      ) {
        return `stale: a call with the token that ${entryName(index)} revokes is admitted, and the list is complete beyond it`;
      }
    }
    for (let followed = 1; followed < state.epochs.length; followed += 1) {
      if ((state.followed & (1 << followed)) === 0) continue;
      for (let before = 0; before < followed; before += 1) {
        if (this.#admits(this.#model.entries.plainToken(state, before), true)) {
          return `stale: a call with a token of epoch ${before} is admitted although the instance has followed a later one`;
        }
      }
    }
    return undefined;
  }
}

/** What an event has done wrong, whatever is admitted. */
function faultOf({ faults }: State): string | undefined {
  if ((faults & FAULTS.otherKeys) !== 0)
    return 'keys: a lease was granted with another key set than the log had';
  if ((faults & FAULTS.falseAlarm) !== 0) return 'alarm: LOG_CHANGED, although the database has lost nothing';
  if ((faults & FAULTS.olderLease) !== 0)
    return 'lease: a response that was overtaken has replaced the lease by an older one';
  if ((faults & FAULTS.noAlarm) !== 0)
    return 'unnoticed: a request whose position is that of a lost entry was answered without LOG_CHANGED';
  return undefined;
}
