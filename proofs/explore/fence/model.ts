/**
 * Small worlds of the fence: two instances of a service, their database with its fence, and the log. What instances do
 * with the fence, with their lists and with reports is the protocol's own code. Leases never end here: an instance that is
 * cut off may trust its list for ever, and the fence alone must stop it.
 *
 * That a list has every entry up to its position is what the other worlds show. Here an instance takes the whole log with
 * one sync, or single entries by broadcast.
 */

import type { Feed, Moment } from '@portcullis/guard/internal';
import { EntryKind } from '../../../proto/gen/portcullis/revocation/v1/revocation.js';
import { entryIdOf, epochIdOf, INSTANCE, SERVICE } from '../identifiers.js';
import type { Protocol } from '../protocol.js';

/** The instances. */
const INSTANCES = [0, 1] as const;

/** What the surroundings do although a guard of theirs forbids it. */
export interface FenceEnvironment {
  /** The transaction does not keep the lock on the fence. */
  readonly withoutLock?: boolean;
  /** The transaction reads the fence as it was when the transaction began. */
  readonly oldVersion?: boolean;
  /** The token is looked up in the list before the fence is locked, and not after. */
  readonly listFirst?: boolean;
  /** The instance reports the fence before the database has confirmed the commit. */
  readonly reportsEarly?: boolean;
  /** An epoch that is opened after a restore may get the number of one that was lost. */
  readonly equalNumbers?: boolean;
}

/** How much of everything there may be in one history. */
export interface FenceWorld {
  readonly name: string;
  readonly about: string;
  readonly entries: number;
  readonly epochs: number;
  readonly restores: number;
  /** The first instance only runs transactions, and the second one only raises the fence. */
  readonly apart?: boolean;
  /** No entry arrives by broadcast. */
  readonly withoutBroadcasts?: boolean;
  /** Instances may crash and start again. */
  readonly crashes?: boolean;
  readonly states: number;
}

/** A place in the log: the number of the epoch, and a sequence. */
type Place = readonly [epochNumber: number, sequence: number];

/** A transaction of one instance. */
interface Work {
  /** BEGUN: the snapshot is taken. LOCKED: the fence was read. PASSED: only COMMIT is missing. */
  readonly step: 'BEGUN' | 'LOCKED' | 'PASSED';
  /** The fence as it was when the transaction began, or as it was read. */
  readonly fence: Place;
  /** The entry that revokes the token of the work. */
  readonly token: number;
}

interface Instance {
  /** The log that its list is a copy of, and how much of it; undefined before the first sync. */
  readonly list: { readonly log: number; readonly applied: number } | undefined;
  /** Entries of that log that came by broadcast, by their sequences. */
  readonly heard: readonly number[];
  /** Where it knows the fence to stand. */
  readonly known: Place | undefined;
  readonly work: Work | undefined;
  /** A transaction that raises the fence, and what it has written; it is not committed. */
  readonly raising: Place | undefined;
}

/** One log: that of an epoch. */
interface Log {
  readonly number: number;
  /** What its entries revoke, in their order. */
  readonly entries: readonly number[];
}

/** A state; it is compared as JSON. */
export interface FenceState {
  /** All logs that have ever been, the lost ones included. */
  readonly logs: readonly Log[];
  readonly present: number;
  /** How many entries were committed. */
  readonly committed: number;
  /** The entries that the database still has. */
  readonly kept: readonly number[];
  readonly backup:
    | { readonly log: number; readonly length: number; readonly kept: readonly number[] }
    | undefined;
  readonly restoresLeft: number;
  readonly fence: Place;
  readonly instances: readonly [Instance, Instance];
  /** The latest report that auth has stored. */
  readonly reported: Place | undefined;
  /** The entries whose Revoke has returned FENCED. */
  readonly fenced: readonly number[];
  /** What has gone wrong. */
  readonly violation: string;
}

/** An event, in words. */
export interface FenceStep {
  readonly text: string;
  readonly state: FenceState;
}

const NOWHERE: Place = [0, 0];
const NEW: Instance = { list: undefined, heard: [], known: undefined, work: undefined, raising: undefined };
const MOMENT: Moment = { monotonicMs: 1, wallMs: 1 };

/** The events of one world. */
export class FenceModel {
  readonly #protocol: Protocol;
  readonly #world: FenceWorld;
  readonly #environment: FenceEnvironment;
  readonly #feeds = new Map<string, Feed>();

  constructor(protocol: Protocol, world: FenceWorld, environment: FenceEnvironment = {}) {
    this.#protocol = protocol;
    this.#world = world;
    this.#environment = environment;
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
      const passes =
        this.#protocol.fence.passesFence(feed, exactPlace(work.fence)) &&
        (this.#environment.listFirst === true || !this.#isRevoked(state, instance, work.token));
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

  #readsEarly(): boolean {
    return this.#environment.oldVersion === true || this.#environment.listFirst === true;
  }

  *#lock(state: FenceState, number: 0 | 1, instance: Instance, text: string): Generator<FenceStep> {
    const { work } = instance;
    if (work === undefined || isRaising(state)) return;
    const read = this.#environment.oldVersion === true ? work.fence : state.fence;
    const place = this.#protocol.fence.lockFence(() => ({ rows: [rowOf(read)] }));
    const fence: Place = [Number(place.epochNumber), Number(place.sequence)];
    yield step(state, number, `${text}locks the fence at ${placeText(fence)}`, {
      ...instance,
      work: { ...work, step: 'LOCKED', fence },
    });
  }

  *#raise(state: FenceState, number: 0 | 1): Generator<FenceStep> {
    const instance = state.instances[number];
    const name = `instance ${number + 1}`;
    if (instance.raising !== undefined) {
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
      const known: Place = [Number(stands.epochNumber), Number(stands.sequence)];
      if (!isWriting) {
        const isKnown = instance.known !== undefined && !isLess(instance.known, known);
        if (!isKnown)
          yield step(state, number, `${name} reads the fence at ${placeText(known)}`, { ...instance, known });
        continue;
      }
      // It waits for every transaction that holds the lock on the row or on the table.
      if (this.#environment.withoutLock !== true && hasPassed(state)) continue;
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

function rowOf([epochNumber, sequence]: Place): object {
  return { fence_id: '00', epoch_number: String(epochNumber), sequence: String(sequence) };
}

const OTHER_ISSUER = 'https://other.example';

/** Tokens of another issuer, because they outlive an epoch. */
function entryOf(token: number, index: number) {
  return {
    entryId: entryIdOf(index + 1),
    sequence: BigInt(index + 1),
    kind: EntryKind.ENTRY_KIND_TOKEN,
    key: Buffer.from(tokenName(token)),
    minGeneration: 0n,
    keepUntil: new Date(1e12),
    acknowledge: false,
    issuer: OTHER_ISSUER,
    claim: '',
    cutOffTime: undefined,
  };
}

function claimsOf(token: number): Parameters<Feed['list']['revokes']>[0] {
  return {
    issuer: OTHER_ISSUER,
    id: 'someone',
    subject: 'someone',
    clientId: 'direct',
    tokenId: tokenName(token),
    sessionId: undefined,
    kind: 'USER',
    scopes: new Set(),
    roles: new Set(),
    audiences: [],
    actors: [],
    authTimeSeconds: undefined,
    expiresAtSeconds: 1e9,
    generation: undefined,
    clients: [],
    ancestors: [],
    origin: undefined,
    issuedAtSeconds: 0,
    keyId: '',
    certificateThumbprint: undefined,
    isForeign: true,
  };
}

function tokenName(token: number): string {
  return `token-${token + 1}`;
}

function entryName(index: number): string {
  return `e${index + 1}`;
}

function placeText([epochNumber, sequence]: Place): string {
  return `${sequence} of epoch ${epochNumber}`;
}
