/**
 * The guards of the protocol, each of which the explorer can leave out. Production has no switches for them: a guard is
 * left out by a change of the compiled text, or by surroundings that do what a guard of theirs forbids.
 */

import type { GuardName } from '../simulate/guards.js';
import type { Edit, ModuleName } from './protocol.js';

/** What the surroundings do although a guard of theirs forbids it. */
export interface Environment {
  /** Sync responses may come from a state of the log that is older than the request. */
  readonly oldReads?: boolean;
  /** The lease begins when the response arrives. */
  readonly leaseFromAnswer?: boolean;
  /** Auth drops entries before their tokens have expired, and leaves the horizon where it is. */
  readonly earlyPurge?: boolean;
  /** A replica does not compare the positions that others have shared with the log. */
  readonly trustsOthers?: boolean;
}

/** A guard: what leaving it out changes, and in which worlds its absence shows. */
export interface Guard {
  readonly name: string;
  /** The rule. */
  readonly about: string;
  readonly edits?: readonly Edit[];
  readonly environment?: Environment;
  /** The worlds that are searched until one has a violation. */
  readonly worlds: readonly string[];
  /** What it is for, although no world has a violation without it: that is outside of what the worlds contain. */
  readonly outside?: string;
}

function edit(module: ModuleName, find: string, replace: string): Edit {
  return { module, find, replace };
}

const NO_CLOCK_RISES = edit('feed', 'awakeMs + (risesMs - lease.risesMs)', 'awakeMs');
const NO_WALL_CLOCK = edit('feed', ', wallMs - lease.sentAt.wallMs);', ', 0);');

const NO_FORGETTING = edit('enforcement', 'epochChanged: () => this.#forgetOwn()', 'epochChanged: () => {}');
const NO_KEY_FLAGS = edit(
  'enforcement',
  'this.#revokeWhere(({ claims }) => !claims.isForeign && !keys.has(claims.keyId));',
  '',
);
const NO_PULL_EPOCH = edit('feed', 'if (!sameBytes(part.value.epoch, this.#epoch))', 'if (false)');
const NO_STAGED_DROP = edit(
  'feed',
  'this.#unacknowledged.clear();\n        this.#staged = undefined;',
  'this.#unacknowledged.clear();',
);

/** Makes an instance of a version that does not know entries of kind CLAIM. */
export const OLD_VERSION: readonly Edit[] = [
  edit('list', 'if (entry.kind === EntryKind.ENTRY_KIND_CLAIM) {', 'if (false) {'),
];

export const GUARDS: readonly Guard[] = [
  {
    name: 'lease',
    about: 'an instance admits calls only while its lease runs',
    edits: [edit('feed', 'return lease.lengthMs - elapsedMs;', 'return 1;')],
    worlds: ['entries'],
  },
  {
    name: 'lease-start',
    about: 'the lease begins when the request was sent, not when the response arrived',
    environment: { leaseFromAnswer: true },
    worlds: ['entries'],
  },
  {
    name: 'monotonic-clock',
    about: 'the lease is over by the monotonic clock',
    edits: [edit('feed', 'awakeMs + (risesMs - lease.risesMs)', '0')],
    worlds: ['jump-back'],
  },
  {
    name: 'wall-clock',
    about: 'the lease is over by the wall clock',
    edits: [NO_WALL_CLOCK],
    worlds: ['sleep'],
    outside:
      'steps of the wall clock of up to 10 ms, which the rises leave out as jitter: here, clocks move in whole ticks',
  },
  {
    name: 'clock-rises',
    about: 'rises of the wall clock above the monotonic one count as time',
    edits: [NO_CLOCK_RISES],
    worlds: ['sleep-back'],
  },
  {
    name: 'wall-clock-and-rises',
    about: 'a sleep counts, although the monotonic clock stands still',
    edits: [NO_CLOCK_RISES, NO_WALL_CLOCK],
    worlds: ['sleep'],
  },
  {
    name: 'wall-before-request',
    about: 'the lease is over when the wall clock is before the request',
    edits: [edit('feed', 'lease === undefined || wallMs < lease.sentAt.wallMs', 'lease === undefined')],
    worlds: ['jump-back', 'sleep-back'],
    outside:
      'a sleep and a set-back between two readings of the clocks: where machines sleep, the worlds read them around each set-back, because the promise holds only then',
  },
  {
    name: 'applied',
    about: 'broadcasts never move the position',
    edits: [
      edit(
        'feed',
        'this.#insert(entry);\n            if (entry.acknowledge)',
        'this.#insert(entry);\n this.#advance(entry.sequence, entry.entryId);\n            if (entry.acknowledge)',
      ),
    ],
    worlds: ['entries'],
  },
  {
    name: 'hydration',
    about: 'the position moves at the end of a pull, not at its beginning',
    edits: [
      edit(
        'feed',
        "ticket.list !== this.#list)\n            return 'pull';",
        "ticket.list !== this.#list) {\n this.#advance(response.head, response.entryIdAtHead);\n            return 'pull'; }",
      ),
    ],
    worlds: ['entries'],
  },
  {
    name: 'ignored-pull',
    about: 'a response that asks for a pull grants no lease',
    edits: [edit('feed', 'if (response.pull || ticket', 'if (ticket')],
    worlds: ['purged'],
  },
  {
    name: 'latest',
    about: 'a response that was overtaken grants no lease: it would replace a newer one',
    edits: [edit('feed', 'ticket.sentAt.monotonicMs > this.#lastAppliedMonotonicMs', 'true')],
    worlds: ['requests'],
  },
  {
    name: 'same-list',
    about: 'a response speaks of the list that its request described',
    edits: [
      edit('feed', 'if (!isLatest || ticket.list !== this.#list)', 'if (!isLatest)'),
      edit(
        'feed',
        'response.pull || ticket.list !== this.#list',
        'response.pull || !sameBytes(ticket.request.epoch, response.epoch)',
      ),
    ],
    worlds: ['epoch-keys'],
  },
  {
    name: 'named-keys',
    about: 'a response without a key set confirms only the key set that its request named',
    edits: [edit('feed', 'if (!this.#hasKeySetOf(ticket, response))', 'if (false)')],
    worlds: ['keys-restore'],
  },
  {
    name: 'epoch',
    about: 'broadcasts of other epochs are ignored',
    edits: [
      edit(
        'feed',
        'this.#epoch.length === 0 || !sameBytes(broadcast.epoch, this.#epoch)',
        'this.#epoch.length === 0',
      ),
    ],
    worlds: ['user'],
  },
  {
    name: 'pull-epoch',
    about: 'a pull counts only if it names the present epoch',
    edits: [NO_PULL_EPOCH],
    worlds: ['old-server'],
  },
  {
    name: 'staged-dropped',
    about: 'a new epoch drops the parts of a pull under way',
    edits: [NO_STAGED_DROP],
    worlds: ['epoch-one'],
    outside:
      'the memory of the parts, which is freed at once: when they end, they name the former epoch and are dropped',
  },
  {
    name: 'pull-of-former-epoch',
    about: 'a pull that began before a new epoch counts for nothing',
    edits: [NO_PULL_EPOCH, NO_STAGED_DROP],
    worlds: ['epoch-one'],
  },
  {
    name: 'merged-pull',
    about: 'a pull is merged into the list, and replaces nothing',
    edits: [edit('feed', 'this.#list.takeOver(staged);', 'this.#list = staged;')],
    worlds: ['entries', 'requests', 'stale'],
  },
  {
    name: 'new-list',
    about: 'a new epoch begins with an empty list',
    edits: [
      edit(
        'feed',
        'this.#list = new RevocationList(this.#listEntriesMax);\n        this.#listener',
        'this.#listener',
      ),
    ],
    worlds: ['user'],
  },
  {
    name: 'epoch-ends-lease',
    about: 'a new epoch ends the lease',
    edits: [edit('feed', 'this.#lease = undefined;', '')],
    worlds: ['foreign'],
  },
  {
    name: 'epoch-ends-hydration',
    about: 'before the list of a new epoch was complete once, no method may be called',
    edits: [edit('feed', 'this.#hydrated = false;', '')],
    worlds: ['stale'],
  },
  {
    name: 'epoch-resets-position',
    about: 'a new epoch begins at position 0',
    edits: [edit('feed', 'this.#applied = 0n;\n        this.#entryIdAtApplied = new Uint8Array(0);', '')],
    worlds: ['foreign', 'epoch-one'],
  },
  {
    name: 'full-list',
    about: 'a list that is full gets no lease',
    edits: [edit('feed', 'this.#list.add(entry);', 'try { this.#list.add(entry); } catch {}')],
    worlds: ['full'],
  },
  {
    name: 'unknown-kind',
    about: 'an instance that receives an entry of a kind that it does not know gets no lease',
    edits: [edit('list', 'if (!isForeignKind(entry.kind)) {', 'if (!isForeignKind(entry.kind)) {\n return;')],
    worlds: ['claim-old'],
  },
  {
    name: 'unread-claim',
    about: 'a token for which the claim of an entry was not read counts as one that has its value',
    edits: [edit('claim-cut-offs', 'own === undefined ? values.values()', 'own === undefined ? []')],
    worlds: ['claim-unread'],
  },
  {
    name: 'horizon',
    about: 'a token whose entries may be dropped has expired, whatever the wall clock shows',
    edits: [edit('admission', ' || token.expiresAtMs <= this.#feed.horizonMs)', ')')],
    worlds: ['retention'],
  },
  {
    name: 'retention',
    about: 'the log keeps an entry until its tokens have expired, and raises the horizon when it drops one',
    environment: { earlyPurge: true },
    worlds: ['purged'],
  },
  {
    name: 'stale-hydration',
    about: 'methods with ON_STALE_ALLOW wait for the first complete list',
    edits: [edit('admission', 'allowStale ? this.#feed.hydrated :', 'allowStale ? true :')],
    worlds: ['stale'],
  },
  {
    name: 'entry-id',
    about: 'auth compares the id of the entry at the position',
    edits: [edit('log', 'if (!known.equals(question.entryIdAtApplied))', 'if (false)')],
    worlds: ['restore', 'restore-requests'],
  },
  {
    name: 'head',
    about: 'auth compares the position with the head of the log',
    edits: [edit('log', 'if (question.applied > state.head)', 'if (false)')],
    worlds: ['restore'],
  },
  {
    name: 'known-epochs',
    about: 'an epoch that the database does not know was lost',
    edits: [
      edit('log', "if (reading.otherEpochs.get(question.epoch.toString('hex')) !== 'OVER')", 'if (false)'),
    ],
    worlds: ['restore'],
  },
  {
    name: 'older-leases',
    about: 'the bound counts longer leases of the past',
    edits: [edit('log', 'Math.max(boundMs, lock.olderLeasesEndBy.getTime())', 'boundMs')],
    worlds: ['shorter-lease'],
  },
  {
    name: 'fence',
    about: 'no standby and no deposed primary answers a sync',
    environment: { oldReads: true },
    worlds: ['old-server'],
  },
  {
    name: 'shared-read',
    about: 'a read answers only requests that arrived before it began',
    environment: { oldReads: true },
    worlds: ['old-server'],
  },
  {
    name: 'compared-position',
    about: 'a position that auth has not compared with the log acknowledges nothing',
    edits: [edit('records', 'const isCompared = !answer.pull && ', 'const isCompared = ')],
    worlds: ['receipts-lost'],
  },
  {
    name: 'record-position',
    about: 'a position counts with the request that named it: after a restore, another entry may stand there',
    edits: [edit('watch', '!isBefore && record.comparedAtMs > committed.committedAtMs', '!isBefore')],
    worlds: ['receipts-lost'],
  },
  {
    name: 'same-log',
    about: 'only requests after the commit acknowledge by their position, and only in the epoch of the entry',
    edits: [
      edit(
        'watch',
        'const isSameLog = isComparedSince && record.epoch.equals(committed.epoch);',
        'const isSameLog = true;',
      ),
    ],
    worlds: ['receipts-restore'],
  },
  {
    name: 'request-after-commit',
    about: 'a request from before the commit acknowledges nothing by its position',
    edits: [
      edit(
        'watch',
        'const isComparedSince = !isBefore && record.comparedAtMs > committed.committedAtMs;',
        'const isComparedSince = true;',
      ),
    ],
    worlds: ['receipts-restore'],
  },
  {
    name: 'shared-position',
    about: 'a position that another replica has shared is compared with the log again',
    environment: { trustsOthers: true },
    worlds: ['receipts-restore'],
    outside:
      'a clock of the database that is set back: here it is the clock by which all times are told. Otherwise the times of the requests show the same',
  },
  {
    name: 'last-lease',
    about: 'a call waits for a silent instance until its last lease from before the commit is over',
    edits: [edit('watch', 'nowMs < one.requestedBeforeMs + boundMs', 'false')],
    worlds: ['receipts'],
  },
  {
    name: 'requested-since',
    about: 'an instance that has asked since the commit is waited for: its record may hide an earlier lease',
    edits: [edit('watch', 'one.requestedSince || nowMs', 'nowMs')],
    worlds: ['receipts'],
  },
  {
    name: 'entry-flags',
    about: 'an entry flags the cached tokens that it revokes',
    edits: [
      edit(
        'enforcement',
        'entryAdded: (entry) => this.#revoke(this.admissions.tokens.revokedBy(entry))',
        'entryAdded: () => {}',
      ),
    ],
    worlds: ['cached'],
  },
  {
    name: 'pull-flags',
    about: 'a pull flags the cached tokens that its entries revoke',
    edits: [
      edit(
        'enforcement',
        'listFilled: (list) => this.#revokeWhere((token) => list.revokes(token.claims))',
        'listFilled: () => {}',
      ),
    ],
    worlds: ['cached', 'cached-epoch'],
  },
  {
    name: 'epoch-forgets',
    about: 'a new epoch forgets the cached tokens of this issuer',
    edits: [NO_FORGETTING],
    worlds: ['cached-epoch'],
    outside:
      'the memory of the cache, which is freed at once: the new key set flags the same tokens, but they stay until they expire',
  },
  {
    name: 'key-flags',
    about: 'a token whose key has left the key set is flagged',
    edits: [NO_KEY_FLAGS],
    worlds: ['cached-key', 'cached-epoch'],
    outside:
      'a key that leaves the key set without an entry: here none does, because auth drops a key only when its tokens have expired',
  },
  {
    name: 'former-epoch-tokens',
    about: 'cached tokens of a former epoch are rejected',
    edits: [NO_FORGETTING, NO_KEY_FLAGS],
    worlds: ['cached-epoch'],
  },
  {
    name: 'flag-checked',
    about: 'the flag of a cached token is checked with every call',
    edits: [edit('admission', 'if (token.revoked || (', 'if ((')],
    worlds: ['cached'],
  },
  {
    name: 'list-searched',
    about: 'a token that enters the cache is looked up in the list',
    edits: [edit('admission', 'token.revoked = this.#feed.list.revokes(claims);', '')],
    worlds: ['cached'],
  },
  {
    name: 'remembered-entry',
    about: 'what a replica remembers of the log counts only if the log has the last of it at its place',
    edits: [
      edit(
        'log-tail',
        'if (same?.sequence !== last.sequence || !same.entryId.equals(last.entryId))',
        'if (false)',
      ),
      edit(
        'log-tail',
        'return last.entryId.equals(state.headEntryId) ? this.#readingOf(known, ranges) : undefined;',
        'return this.#readingOf(known, ranges);',
      ),
    ],
    worlds: ['tail'],
  },
  {
    name: 'remembered-prefix',
    about: 'what a replica remembers of the log must begin where the instance ends',
    edits: [edit('log-tail', 'if (this.#from > from)', 'if (false)')],
    worlds: ['tail'],
  },
  {
    name: 'digest',
    about: 'auth compares the ids of the entries that an instance holds by broadcasts with the log',
    edits: [edit('log', 'digest?.equals(question.heldDigest) ?', 'digest !== undefined ?')],
    worlds: ['held'],
  },
  {
    name: 'digest-all-ids',
    about: 'the ids of all these entries are compared, not only that of the last one',
    edits: [
      edit(
        'held-entries',
        'Buffer.from(this.#heldTo > this.#position ? this.#digest : [])',
        'Buffer.from(this.#heldTo > this.#position ? this.#ids.subarray(this.#slotOf(this.#heldTo) * ID_BYTES).subarray(0, ID_BYTES) : [])',
      ),
      edit('id-digests', 'this.#indexAfter(Number(after))', 'this.#indexAfter(Number(upTo) - 1)'),
    ],
    worlds: ['held'],
  },
  {
    name: 'digest-added',
    about: 'an entry counts as held only after it was added to the list',
    edits: [
      edit(
        'feed',
        'this.#list.add(entry);',
        'this.#held.add(entry.sequence, entry.entryId);\n this.#list.add(entry);',
      ),
    ],
    worlds: ['full'],
  },
  {
    name: 'digest-epoch',
    about: 'a new epoch begins without held entries',
    edits: [edit('feed', 'this.#held.clear();', '')],
    worlds: ['epoch-one'],
    outside:
      'ids that a log of another epoch has again: here, as in the database, every entry has its own. Until the position is beyond the former ones, no digest would be that of the log, so entries would be sent again',
  },
];

/** The guards that only the simulator leaves out: what they guard is not in the state of the explorer. */
export const SIMULATED_ONLY: { readonly [G in GuardName]?: string } = {
  recheck: 'the verification of a token is one event here',
  'session-generation': 'there are no sessions here',
  signature: 'messages cannot be forged here',
  generation: 'tokens are not minted here',
  'fence-lock': 'the worlds of the fence are explored by themselves',
  'fence-position': 'the worlds of the fence are explored by themselves',
  'fence-list': 'the worlds of the fence are explored by themselves',
  'stored-lifetime': 'the search of lifetimes leaves it out',
  'older-lifetimes': 'the search of lifetimes leaves it out',
};

/** @throws RangeError when there is no such guard */
export function guardOf(name: string): Guard {
  const guard = GUARDS.find((each) => each.name === name);
  if (guard === undefined) throw new RangeError(`there is no guard ${name}`);
  return guard;
}
