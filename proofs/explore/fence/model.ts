/**
 * Small worlds of the fence: two instances of a service, their database with its fence, and the log. What instances do
 * with the fence, with their lists and with reports is the protocol's own code. Leases never end here: an instance that is
 * cut off may trust its list for ever, and the fence alone must stop it.
 *
 * That a list has every entry up to its position is what the other worlds show. Here an instance takes the whole log with
 * one sync, or single entries by broadcast.
 */

import type { Feed, Moment } from '@portcullis/guard/internal';
import type { FenceStep as TableStep } from '../../spec/fence-rows.js';
import { entryIdOf, epochIdOf, INSTANCE, SERVICE } from '../identifiers.js';
import type { Protocol } from '../protocol.js';
import { compareFence, instanceName, raiseName, workName } from './compared.js';
import type { FenceEnvironment, FenceState, FenceStep, FenceWorld, Instance, Log, Place } from './state.js';
import { claimsOf, entryOf } from './tokens.js';

/** The instances. */
const INSTANCES = [0, 1] as const;

const NOWHERE: Place = [0, 0];
const NEW: Instance = { list: undefined, heard: [], known: undefined, work: undefined, raising: undefined };
const MOMENT: Moment = { monotonicMs: 1, wallMs: 1 };

/** The events of one world. */
export class FenceModel {
  readonly #protocol: Protocol;
  readonly #world: FenceWorld;
  readonly #environment: FenceEnvironment;
  readonly #isCompared: boolean;
  readonly #feeds = new Map<string, Feed>();

  /** @param isCompared - every decision is compared with the rows of the specification */
  constructor(protocol: Protocol, world: FenceWorld, environment: FenceEnvironment = {}, isCompared = false) {
    this.#protocol = protocol;
    this.#world = world;
    this.#environment = environment;
    this.#isCompared = isCompared;
  }

  initial(): FenceState {
    return {
      logs: [{ number: 1, entries: [] }],
      present: 0,
      committed: 0,
      kept: [],
      backup: undefined,
      restoresLeft: this.#world.restores,
      fence: NOWHERE,
      instances: [NEW, NEW],
      reported: undefined,
      fenced: [],
      violation: '',
    };
  }

  /** Everything that can happen next. */
  *next(state: FenceState): Generator<FenceStep> {
    yield* this.#log(state);
    for (const number of INSTANCES) {
      yield* this.#instance(state, number);
      if (this.#world.apart !== true || number === 0) yield* this.#work(state, number);
      if (this.#world.apart !== true || number === 1) yield* this.#raise(state, number);
    }
    yield* this.#return(state);
  }

  *#log(state: FenceState): Generator<FenceStep> {
    const { logs, present, committed, kept, backup, restoresLeft } = state;
    const log = logOf(state, present);
    if (committed < this.#world.entries) {
      yield {
        text: `Revoke commits ${entryName(committed)}`,
        state: {
          ...state,
          logs: logs.with(present, { ...log, entries: [...log.entries, committed] }),
          committed: committed + 1,
          kept: [...kept, committed],
        },
      };
    }
    if (logs.length <= this.#world.epochs) {
      // Entries about tokens that outlive the epoch are copied.
      const opened: Log = {
        number: highestNumber(state) + 1,
        entries: log.entries.filter((entry) => !this.#isOwn(entry)),
      };
      yield {
        text: `an epoch is opened, with number ${opened.number}`,
        state: { ...state, logs: [...logs, opened], present: logs.length },
      };
    }
    if (restoresLeft > 0 && backup === undefined) {
      yield {
        text: 'a backup is made',
        state: { ...state, backup: { log: present, length: log.entries.length, kept } },
      };
    }
    if (restoresLeft > 0 && backup !== undefined) {
      // What was committed since is in the log of another branch, which instances may have followed.
      const restored = {
        ...logOf(state, backup.log),
        entries: logOf(state, backup.log).entries.slice(0, backup.length),
      };
      const opened: Log = {
        number: this.#environment.equalNumbers === true ? restored.number : highestNumber(state) + 1,
        entries: restored.entries,
      };
      yield {
        text: `the database is restored from the backup, and an epoch is opened, with number ${opened.number}`,
        state: {
          ...state,
          logs: [...logs, opened],
          present: logs.length,
          kept: backup.kept,
          restoresLeft: restoresLeft - 1,
          backup: undefined,
        },
      };
    }
  }

  *#instance(state: FenceState, number: 0 | 1): Generator<FenceStep> {
    const instance = state.instances[number];
    const log = logOf(state, state.present);
    const isCurrent = instance.list?.log === state.present && instance.list.applied === log.entries.length;
    if (!isCurrent) {
      const list = { log: state.present, applied: log.entries.length };
      yield step(state, number, `instance ${number + 1} syncs`, { ...instance, list, heard: [] });
    }
    const { list } = instance;
    if (list !== undefined && this.#world.withoutBroadcasts !== true) {
      for (
        let sequence = list.applied + 1;
        sequence <= logOf(state, list.log).entries.length;
        sequence += 1
      ) {
        if (instance.heard.includes(sequence)) continue;
        const heard = [...instance.heard, sequence].sort((one, other) => one - other);
        const text = `instance ${number + 1} receives the broadcast of entry ${sequence} of its log`;
        yield step(state, number, text, { ...instance, heard });
      }
    }
    if (this.#world.crashes === true && instance.list !== undefined) {
      yield step(state, number, `instance ${number + 1} crashes and starts again`, NEW);
    }
    const { known, raising } = instance;
    const report = this.#environment.reportsEarly === true ? (raising ?? known) : known;
    if (report !== undefined && (state.reported === undefined || isLess(state.reported, report))) {
      this.#compare(state, { do: 'report', instance: instanceName(number), expect: report });
      yield {
        text: `instance ${number + 1} reports the fence at ${placeText(report)}`,
        state: { ...state, reported: report },
      };
    }
  }

  /** The transaction of a call whose token some entry revokes. */
  *#work(state: FenceState, number: 0 | 1): Generator<FenceStep> {
    const instance = state.instances[number];
    const { work, list } = instance;
    const name = `instance ${number + 1}`;
    if (work === undefined) {
      if (list === undefined || instance.raising !== undefined) return;
      for (let token = 0; token < state.committed; token += 1) {
        if (this.#environment.listFirst === true && this.#isRevoked(state, instance, token)) continue;
        const begun: Instance = { ...instance, work: { step: 'BEGUN', fence: state.fence, token } };
        const text = `${name} begins a transaction for the token that ${entryName(token)} revokes`;
        // What happens between the beginning and the lock matters only when something is read before the lock.
        if (this.#readsEarly()) yield step(state, number, text, begun);
        else yield* this.#lock(state, number, begun, `${text}, and `);
      }
      return;
    }
    yield step(state, number, `the transaction of ${name} ends without a commit`, {
      ...instance,
      work: undefined,
    });
    if (work.step === 'BEGUN') yield* this.#lock(state, number, instance, `${name} `);
    if (work.step === 'LOCKED') {
      const feed = this.#feedOf(state, instance);
      const refused = this.#isRevoked(state, instance, work.token);
      const passes =
        this.#protocol.fence.passesFence(feed, exactPlace(work.fence)) &&
        (this.#environment.listFirst === true || !refused);
      this.#compare(state, {
        do: 'pass',
        transaction: workName(number),
        place: placeOf(feed.place),
        lease: true,
        refused,
        expect: passes ? 'passed' : 'failed',
      });
      if (passes)
        yield step(state, number, `${name} passes`, { ...instance, work: { ...work, step: 'PASSED' } });
    }
    if (work.step === 'PASSED') {
      const late = state.fenced.includes(work.token) && state.kept.includes(work.token);
      const after = step(state, number, `${name} commits`, { ...instance, work: undefined });
      const violation = late
        ? `a transaction for the token that ${entryName(work.token)} revokes is committed after Revoke has returned FENCED`
        : '';
      yield { ...after, state: { ...after.state, violation } };
    }
  }

  #compare(state: FenceState, ...steps: readonly TableStep[]): void {
    if (this.#isCompared) compareFence(state, ...steps);
  }

  #readsEarly(): boolean {
    return this.#environment.oldVersion === true || this.#environment.listFirst === true;
  }

  *#lock(state: FenceState, number: 0 | 1, instance: Instance, text: string): Generator<FenceStep> {
    const { work } = instance;
    if (work === undefined) return;
    const begun = step(state, number, '', instance).state;
    const transaction = workName(number);
    if (isRaising(state)) {
      this.#compare(begun, { do: 'lock', transaction, expect: 'waits' });
      return;
    }
    const read = this.#environment.oldVersion === true ? work.fence : state.fence;
    const place = this.#protocol.fence.lockFence(() => ({ rows: [rowOf(read)] }));
    const fence = placeOf(place);
    this.#compare(begun, { do: 'lock', transaction, expect: fence });
    yield step(state, number, `${text}locks the fence at ${placeText(fence)}`, {
      ...instance,
      work: { ...work, step: 'LOCKED', fence },
    });
  }

  *#raise(state: FenceState, number: 0 | 1): Generator<FenceStep> {
    const instance = state.instances[number];
    const name = `instance ${number + 1}`;
    if (instance.raising !== undefined) {
      const transaction = raiseName(number);
      this.#compare(
        state,
        { do: 'commit', transaction },
        { do: 'end', transaction },
        { do: 'confirm', transaction, instance: instanceName(number) },
        { do: 'report', instance: instanceName(number), expect: instance.raising },
      );
      yield {
        text: `the database commits the fence at ${placeText(instance.raising)}`,
        state: {
          ...step(state, number, '', { ...instance, raising: undefined, known: instance.raising }).state,
          fence: instance.raising,
        },
      };
      yield step(state, number, `the database ends the transaction of ${name} that raises the fence`, {
        ...instance,
        raising: undefined,
      });
      return;
    }
    if (instance.list === undefined || instance.work !== undefined || isRaising(state)) return;
    const { place } = this.#feedOf(state, instance);
    // Wanted may be any entry that it has applied.
    for (let sequence = 0n; sequence <= place.sequence; sequence += 1n) {
      const statements: string[] = [];
      let written: Place = state.fence;
      const stands = this.#protocol.fence.raiseFence(
        (text, values = []) => {
          statements.push(text);
          if (/^UPDATE/.test(text)) {
            const to: Place = [Number(values[0]), Number(values[1])];
            if (!/WHERE \(epoch_number, sequence\) </.test(text) || isLess(written, to)) written = to;
          }
          return { rows: [{ ...rowOf(written), alone: true }] };
        },
        { epochNumber: place.epochNumber, sequence },
      );
      const isWriting = statements.some((text) => /^(LOCK|UPDATE)/.test(text));
      const known = placeOf(stands);
      const waits = isWriting && this.#environment.withoutLock !== true && hasPassed(state);
      const wanted: Place = [Number(place.epochNumber), Number(sequence)];
      // An instance that knows the fence to stand there does not try.
      if (instance.known === undefined || isLess(instance.known, wanted)) {
        this.#compare(state, {
          do: 'raise',
          transaction: raiseName(number),
          instance: instanceName(number),
          place: placeOf(place),
          wanted,
          expect: waits ? 'waits' : known,
        });
      }
      if (!isWriting) {
        const isKnown = instance.known !== undefined && !isLess(instance.known, known);
        if (!isKnown)
          yield step(state, number, `${name} reads the fence at ${placeText(known)}`, { ...instance, known });
        continue;
      }
      // It waits for every transaction that holds the lock on the row or on the table.
      if (waits) continue;
      yield step(state, number, `${name} raises the fence to ${placeText(written)}`, {
        ...instance,
        raising: written,
      });
    }
  }

  *#return(state: FenceState): Generator<FenceStep> {
    const { logs, present, fenced, reported } = state;
    const log = logs[present];
    if (log === undefined) return;
    for (const [index, entry] of log.entries.entries()) {
      // Revoke waits for the entry that it has written; a copy in a later epoch has no call that waits.
      if (fenced.includes(entry)) continue;
      const written = logs.find(({ entries }) => entries.includes(entry));
      const place = {
        epochNumber: BigInt(written?.number ?? 0),
        sequence: BigInt((written?.entries.indexOf(entry) ?? index) + 1),
      };
      const fences = reported === undefined ? [] : [exactPlace(reported)];
      if (this.#protocol.fenceWatch.fenceStateOf(place, fences) !== 'FENCED') continue;
      yield {
        text: `Revoke of ${entryName(entry)} returns FENCED`,
        state: { ...state, fenced: [...fenced, entry].sort((one, other) => one - other) },
      };
    }
  }

  /** The first entry is about a token of the issuer, where epochs are opened: it ends with the first epoch. */
  #isOwn(entry: number): boolean {
    return this.#world.epochs > 0 && entry === 0;
  }

  /** Whether the list of an instance revokes a token, as its admission would find. */
  #isRevoked(state: FenceState, instance: Instance, token: number): boolean {
    if (this.#isOwn(token) && instance.list?.log !== 0) return true;
    return this.#feedOf(state, instance).list.revokes(claimsOf(token));
  }

  /** The feed of an instance, made with the messages that it has received. */
  #feedOf(state: FenceState, { list, heard }: Instance): Feed {
    if (list === undefined) throw new RangeError('the instance has no list');
    const log = logOf(state, list.log);
    const key = JSON.stringify([list, heard, log.number, log.entries]);
    const known = this.#feeds.get(key);
    if (known !== undefined) return known;
    const feed = this.#makeFeed(log, list, heard);
    this.#feeds.set(key, feed);
    return feed;
  }

  #makeFeed(
    log: Log,
    { log: epoch, applied }: { log: number; applied: number },
    heard: readonly number[],
  ): Feed {
    const feed: Feed = new this.#protocol.Feed({
      service: SERVICE,
      instance: INSTANCE,
      listener: { entryAdded: () => {}, listFilled: () => {}, epochChanged: () => {} },
    });
    const entries = log.entries.map((token, index) => entryOf(token, index));
    const response = {
      epoch: epochIdOf(epoch + 1),
      head: BigInt(applied),
      entryIdAtHead: applied === 0 ? Buffer.alloc(0) : entryIdOf(applied),
      entries: entries.slice(0, applied),
      pull: false,
      keySet: { version: Buffer.alloc(32, 1), keys: [] },
      broadcastKeys: [],
      horizon: new Date(0),
      leaseLength: { seconds: 60n, nanos: 0 },
      epochNumber: BigInt(log.number),
      fenceWanted: 0n,
    };
    // The first response begins the epoch, the second one grants.
    feed.applySyncResponse(feed.createSyncRequest(MOMENT), { ...response, pull: true }, () => {});
    feed.applySyncResponse(feed.createSyncRequest({ monotonicMs: 2, wallMs: 2 }), response, () => {});
    for (const sequence of heard) {
      feed.applyBroadcast({ epoch: epochIdOf(epoch + 1), entries: entries.slice(sequence - 1, sequence) });
    }
    return feed;
  }
}

function logOf({ logs }: FenceState, index: number): Log {
  const log = logs[index];
  if (log === undefined) throw new RangeError(`there is no log ${index}`);
  return log;
}

function highestNumber({ logs }: FenceState): number {
  return Math.max(...logs.map(({ number }) => number));
}

function step(state: FenceState, number: 0 | 1, text: string, instance: Instance): FenceStep {
  const [one, two] = state.instances;
  return { text, state: { ...state, instances: number === 0 ? [instance, two] : [one, instance] } };
}

function hasPassed({ instances }: FenceState): boolean {
  return instances.some(({ work }) => work?.step === 'LOCKED' || work?.step === 'PASSED');
}

function isRaising({ instances }: FenceState): boolean {
  return instances.some(({ raising }) => raising !== undefined);
}

function isLess(one: Place, other: Place): boolean {
  return one[0] < other[0] || (one[0] === other[0] && one[1] < other[1]);
}

function exactPlace([epochNumber, sequence]: Place): { epochNumber: bigint; sequence: bigint } {
  return { epochNumber: BigInt(epochNumber), sequence: BigInt(sequence) };
}

function placeOf({ epochNumber, sequence }: Feed['place']): Place {
  return [Number(epochNumber), Number(sequence)];
}

function rowOf([epochNumber, sequence]: Place): object {
  return { fence_id: '00', epoch_number: String(epochNumber), sequence: String(sequence) };
}

function entryName(index: number): string {
  return `e${index + 1}`;
}

function placeText([epochNumber, sequence]: Place): string {
  return `${sequence} of epoch ${epochNumber}`;
}
