/**
 * How long the log keeps an entry, searched by itself: transactions that mint, replicas that change the lifetime of tokens,
 * and a revocation, in every order. The other worlds assume what this one shows: that an entry is kept until every token
 * that it revokes has expired.
 */

import { keptUntilMs } from '../spec/retention-rows.js';

/** The rules, each of which the search can leave out. */
export const LIFETIME_GUARDS = {
  'older-lifetime': 'the former lifetime counts until its end is noted',
  'noted-end': 'the end of the last token of a former lifetime is noted',
  'second-transaction': 'that end is noted by a transaction that begins after the change was committed',
  'stored-lifetime': 'minting reads the lifetime in the state of the log, not in its configuration',
  'clock-first': 'minting reads the clock before the lifetime',
  'locked-lifetime': 'a revocation reads the lifetime in the row that it has locked',
  'waits-for-minting': 'a revocation waits for the transactions that mint tokens which it revokes',
} as const;

export type LifetimeGuard = keyof typeof LIFETIME_GUARDS;

export const LIFETIME_GUARD_NAMES = Object.keys(LIFETIME_GUARDS) as readonly LifetimeGuard[];

/** The lifetimes, in ticks. */
const LONG = 3;
const SHORT = 1;

/** How often the lifetime may be changed in one history. */
const CHANGES_MAX = 4;

const REPLICAS = [0, 1] as const;

/** A transaction that mints: it reads the clock, and then the lifetime. */
interface Minting {
  readonly replica: number;
  /** Ticks since it has read the clock. */
  readonly clockAge: number | undefined;
  readonly lifetime: number | undefined;
}

/** The part of the log's state that says how long entries are kept. */
interface Lifetimes {
  readonly lifetime: number;
  /** A former, longer lifetime whose end is not noted; 0 when there is none. */
  readonly older: number;
  /** Ticks until the last token of a former lifetime has expired. */
  readonly olderEndsIn: number;
}

interface State extends Lifetimes {
  /** What each replica was configured with last. */
  readonly configured: readonly number[];
  readonly changesLeft: number;
  /** A change that is not committed, and the end that it notes; only without the second transaction. */
  readonly changing: { readonly to: number; readonly endsIn: number } | undefined;
  readonly mintings: readonly Minting[];
  /** Ticks until the last token has expired. */
  readonly tokenEndsIn: number;
  /** What a revocation has read when it began. */
  readonly begun: Lifetimes | undefined;
  /** Ticks until the entry is dropped; undefined before the revocation. */
  readonly keptFor: number | undefined;
}

interface Step {
  readonly what: string;
  readonly next: State;
}

export interface LifetimesFound {
  readonly states: number;
  /** The shortest history after which an entry is dropped before a token that it revokes has expired. */
  readonly violation: readonly string[] | undefined;
}

/** Visits every state, breadth first, until one violates the rule. */
export function searchLifetimes(without?: LifetimeGuard): LifetimesFound {
  const start: State = {
    lifetime: SHORT,
    older: 0,
    olderEndsIn: 0,
    configured: REPLICAS.map(() => SHORT),
    changesLeft: CHANGES_MAX,
    changing: undefined,
    mintings: [],
    tokenEndsIn: 0,
    begun: undefined,
    keptFor: undefined,
  };
  const cameFrom = new Map<string, { readonly before: string; readonly what: string }>();
  const historyOf = (name: string): string[] => {
    const history: string[] = [];
    for (let at = cameFrom.get(name); at !== undefined && at.what !== ''; at = cameFrom.get(at.before)) {
      history.unshift(at.what);
    }
    return history;
  };
  const nameOf = (state: State): string => JSON.stringify(Object.values(state));
  cameFrom.set(nameOf(start), { before: '', what: '' });
  let frontier: readonly State[] = [start];
  while (frontier.length > 0) {
    const found: State[] = [];
    for (const state of frontier) {
      const before = nameOf(state);
      for (const { what, next } of stepsFrom(state, without)) {
        const name = nameOf(next);
        if (cameFrom.has(name)) continue;
        cameFrom.set(name, { before, what });
        if (next.keptFor !== undefined && next.tokenEndsIn > next.keptFor) {
          return { states: cameFrom.size, violation: historyOf(name) };
        }
        found.push(next);
      }
    }
    frontier = found;
  }
  return { states: cameFrom.size, violation: undefined };
}

function stepsFrom(state: State, without: LifetimeGuard | undefined): readonly Step[] {
  return [
    { what: 'a tick passes', next: passed(state) },
    ...changesFrom(state, without),
    ...mintingsFrom(state, without),
    ...revocationsFrom(state, without),
  ];
}

function passed(state: State): State {
  const later = (ticks: number): number => Math.max(0, ticks - 1);
  const { mintings, keptFor, begun, changing } = state;
  return {
    ...state,
    olderEndsIn: later(state.olderEndsIn),
    tokenEndsIn: later(state.tokenEndsIn),
    keptFor: keptFor === undefined ? undefined : later(keptFor),
    begun: begun && { ...begun, olderEndsIn: later(begun.olderEndsIn) },
    changing: changing && { ...changing, endsIn: later(changing.endsIn) },
    // Beyond the longest lifetime its token has expired anyway.
    mintings: mintings.map((each) =>
      each.clockAge === undefined ? each : { ...each, clockAge: Math.min(LONG, each.clockAge + 1) },
    ),
  };
}

function changesFrom(state: State, without: LifetimeGuard | undefined): readonly Step[] {
  const { lifetime, older, olderEndsIn, changesLeft, configured, changing } = state;
  const steps: Step[] = [];
  if (changing !== undefined) {
    const next = {
      ...state,
      lifetime: changing.to,
      olderEndsIn: Math.max(olderEndsIn, changing.endsIn),
      changing: undefined,
    };
    return [{ what: `the change to ${changing.to} is committed`, next }];
  }
  for (const to of changesLeft > 0 ? [SHORT, LONG] : []) {
    for (const replica of REPLICAS) {
      const set = {
        ...state,
        changesLeft: changesLeft - 1,
        configured: configured.map((own, index) => (index === replica ? to : own)),
      };
      const longest = Math.max(lifetime, older, to);
      const what = `replica ${replica + 1} sets the lifetime to ${to}`;
      if (without === 'second-transaction') {
        const endsIn = longest === to ? 0 : longest;
        steps.push({ what: `${what}, and has not committed`, next: { ...set, changing: { to, endsIn } } });
      } else {
        steps.push({ what, next: { ...set, lifetime: to, older: longest === to ? 0 : longest } });
      }
    }
  }
  if (older > 0) {
    const endsIn = without === 'noted-end' ? olderEndsIn : Math.max(olderEndsIn, older);
    steps.push({
      what: `the end of the former lifetime of ${older} is noted`,
      next: { ...state, older: 0, olderEndsIn: endsIn },
    });
  }
  return steps;
}

function mintingsFrom(state: State, without: LifetimeGuard | undefined): readonly Step[] {
  const { mintings, keptFor, lifetime: stored, configured } = state;
  const steps: Step[] = [];
  for (const replica of REPLICAS) {
    // A session that was revoked gets no token, and one minting of each replica shows every order.
    if (keptFor !== undefined || mintings.some((each) => each.replica === replica)) continue;
    const begun = { replica, clockAge: undefined, lifetime: undefined };
    const next = { ...state, mintings: [...mintings, begun].sort((a, b) => a.replica - b.replica) };
    steps.push({ what: `replica ${replica + 1} begins to mint`, next });
  }
  for (const minting of mintings) {
    const { replica, clockAge, lifetime } = minting;
    const who = `replica ${replica + 1}`;
    const change = (over: Partial<Minting>): State => ({
      ...state,
      mintings: mintings.map((each) => (each === minting ? { ...each, ...over } : each)),
    });
    const mayReadLifetime = without === 'clock-first' || clockAge !== undefined;
    if (clockAge === undefined) steps.push({ what: `${who} reads the clock`, next: change({ clockAge: 0 }) });
    if (lifetime === undefined && mayReadLifetime) {
      const read = without === 'stored-lifetime' ? (configured[replica] ?? 0) : stored;
      steps.push({ what: `${who} reads the lifetime ${read}`, next: change({ lifetime: read }) });
    }
    if (clockAge === undefined || lifetime === undefined) continue;
    const tokenEndsIn = Math.max(state.tokenEndsIn, lifetime - clockAge);
    const left = mintings.filter((each) => each !== minting);
    steps.push({ what: `${who} commits its token`, next: { ...state, tokenEndsIn, mintings: left } });
  }
  return steps;
}

function revocationsFrom(state: State, without: LifetimeGuard | undefined): readonly Step[] {
  const { lifetime, older, olderEndsIn, begun, keptFor, mintings } = state;
  if (keptFor !== undefined) return [];
  const steps: Step[] = [];
  if (without === 'locked-lifetime' && begun === undefined) {
    const next = { ...state, begun: { lifetime, older, olderEndsIn } };
    steps.push({ what: 'the revocation begins, and reads the lifetime', next });
  }
  if (mintings.length > 0 && without !== 'waits-for-minting') return steps;
  const from = begun ?? state;
  const counted = without === 'older-lifetime' ? from.lifetime : Math.max(from.lifetime, from.older);
  const entry = { kind: 'SESSION', issuer: '', token_expires_ms: null, locked_ms: 0 };
  // The row of the specification; all clocks are one here.
  const kept =
    keptUntilMs({ ...entry, lifetime_ms: counted, former_end_ms: from.olderEndsIn }, { marginMs: 0 }) ?? 0;
  steps.push({
    what: `the revocation is committed, and kept for ${kept}`,
    next: { ...state, begun: undefined, keptFor: kept },
  });
  return steps;
}
