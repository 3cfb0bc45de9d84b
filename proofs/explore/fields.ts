/**
 * The fields of the protocol's classes. Every field is declared here with what becomes of it; a field that is missing, or
 * that the class does not have, is an error at the start.
 */

import { INSTANCE, SERVICE } from './identifiers.js';
import type { Protocol } from './protocol.js';

/** What becomes of a field: `state` is a part of the state; any other text is the reason why it is not. */
const FIELDS = {
  Feed: {
    service: 'constant',
    instance: 'constant',
    listener: 'constant',
    listEntriesMax: 'constant',
    claimIds: 'constant',
    list: 'state',
    staged: 'state',
    epoch: 'state',
    epochNumber: 'the epoch, once its list was complete',
    fenceWanted: 'the worlds of the fence have their own states',
    applied: 'state',
    entryIdAtApplied: 'state',
    highestSeen: 'only decides whether a sync is due, and here a sync may begin at any time',
    keySetVersion: 'state',
    horizonMs: 'state',
    lastAppliedMonotonicMs: 'state: its place among the open requests, with which alone it is compared',
    lease: 'state',
    rises: 'state',
    held: 'state',
    hydrated: 'state',
    unacknowledged: 'state; the order only decides which one beyond a hundred is dropped',
  },
  RevocationList: {
    tokens: 'state',
    sessions: 'no world revokes sessions: they are treated as tokens are',
    users: 'state',
    clients: 'no world revokes clients: they are treated as users are',
    keys: 'state',
    foreignIds: 'state',
    foreignUsers: 'no world revokes users of other issuers',
    foreignClaims: 'state',
    packed: 'the number of tokens',
    max: 'constant',
  },
  HeldEntries: {
    position: 'state',
    heldTo: 'state',
    digest: 'state',
    sequences: 'state: those after the position',
    ids: 'state: those of the entries after the position',
  },
  ClaimCutOffs: { issuers: 'state', size: 'the number of values' },
  ClockRises: {
    endedMs: 'state: its difference to the sums in requests and lease',
    lowestMs: 'state',
    highestMs: 'state',
    riseMs: 'state',
  },
  LogTail: { epoch: 'state', from: 'state', entries: 'state', ids: 'the entries, which are few here' },
  IdDigests: {
    length: 'that of the entries',
    sequences: 'the entries',
    sums: 'the entries',
    before: 'nothing is dropped here',
    after: 'that of the tail',
  },
  Enforcement: {
    feed: 'replaced by that of the state',
    admissions: 'below',
    clock: 'constant',
    timers: 'constant',
    onCutFailed: 'constant',
    decisionsSeen: 'only decides when the next calls are cut, and here no call is open',
    cutQueue: 'no call is open',
  },
  Admissions: {
    tokens: 'state',
    decisions: 'counts, and decides nothing but when calls are cut',
    issuer: 'constant',
    audience: 'constant',
    clock: 'constant',
    feed: 'replaced by that of the state',
    trusted: 'constant',
    onTokenInvalid: 'constant',
    onVerified: 'constant',
    onLimit: 'constant',
    pending: 'the verification of a token is one event here',
    knownNetworks: 'no world has networks',
    verifications: 'the verification of a token is one event here',
    foreignVerifications: 'the verification of a token is one event here',
    keys: 'state',
  },
  IdTable: {
    directory: 'the tokens',
    depth: 'the tokens',
    size: 'the tokens',
    compactNext: 'decides nothing but how much memory the tokens take',
  },
} as const;

/**
 * Compares the fields of the classes with those declared here.
 *
 * @throws Error naming the fields that are missing on either side
 */
export function checkFields(protocol: Protocol): void {
  const {
    Feed,
    RevocationList,
    ClaimCutOffs,
    HeldEntries,
    ClockRises,
    IdTable,
    IdDigests,
    LogTail,
    Enforcement,
  } = protocol;
  const nothing = (): void => {};
  const listener = { entryAdded: nothing, listFilled: nothing, epochChanged: nothing };
  const feed = new Feed({ service: SERVICE, instance: INSTANCE, listener });
  const enforcement = new Enforcement({
    issuer: '',
    audience: '',
    clock: { monotonicMs: () => 0, wallMs: () => 0 },
    timers: { after: () => nothing, soon: nothing },
    createFeed: () => feed,
    onTokenInvalid: nothing,
    onCutFailed: nothing,
  });
  const samples = {
    Feed: feed,
    LogTail: new LogTail(),
    IdDigests: new IdDigests(0n),
    HeldEntries: new HeldEntries(),
    Enforcement: enforcement,
    Admissions: enforcement.admissions,
    RevocationList: new RevocationList(),
    ClaimCutOffs: new ClaimCutOffs(),
    ClockRises: new ClockRises(),
    IdTable: new IdTable(),
  };
  for (const [name, sample] of Object.entries(samples)) {
    const declared = Object.keys(FIELDS[name as keyof typeof FIELDS]);
    const found = Object.keys(sample).map((field) => field.replace(/^_/, ''));
    const unknown = found.filter((field) => !declared.includes(field));
    const gone = declared.filter((field) => !found.includes(field));
    if (unknown.length + gone.length === 0) continue;
    throw new Error(
      `the fields of ${name} have changed: declare in proofs/explore/fields.ts what becomes of ${[...unknown, ...gone].join(', ')}`,
    );
  }
}
