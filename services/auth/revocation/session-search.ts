/** The search for the sessions that a revocation is about: the checks of its filter, and its steps. */

import { isIPv4, isIPv6, SocketAddress } from 'node:net';
import type { Clock, Timers } from '@portcullis/guard/clock';
import { invalidField } from '@portcullis/guard/errors';
import { CLOCK_SKEW_SECONDS } from '@portcullis/guard/limits';
import { networkOf } from '@portcullis/guard/networks';
import { requireKnownRoles } from '../accounts/roles.js';
import { AuthError } from '../errors.js';
import type { PolicyRows } from '../records/policy.js';
import type { MatchedSession, SessionFilter, SessionRows } from '../records/sessions.js';
import { createTurns } from './turns.js';

/** How many matching sessions are returned at once. */
const SESSIONS_AT_ONCE = 500;

/** How many matching sessions a dry run lists. */
const SESSIONS_LISTED_MAX = 100;

/** Maximum number of searches of one caller that wait for their next step. */
const WAITING_SEARCHES_PER_CALLER_MAX = 20;

export interface SessionSearchDeps {
  readonly store: {
    transaction<T>(
      work: (tx: {
        readonly sessions: Pick<SessionRows, 'match' | 'countMatching'>;
        readonly policy: Pick<PolicyRows, 'current'>;
      }) => Promise<T>,
    ): Promise<T>;
  };
  readonly clock: Clock;
  readonly timers?: Timers;
}

/** Who searches. */
export interface SearchCaller {
  readonly actor: string;
  /** Ends the search. */
  readonly signal: AbortSignal;
}

/** How many sessions match a filter, and the first of them by id. */
export interface MatchedSessions {
  readonly sessionCount: number;
  readonly sessions: readonly MatchedSession[];
}

/** Searches for open sessions. */
export interface SessionSearch {
  /**
   * Returns the sessions that match, some hundreds at a time.
   *
   * @throws ServiceError FIELD_INVALID; RATE_LIMITED when too many searches of the caller wait; DEPENDENCY_UNAVAILABLE; the
   *   reason of the signal
   */
  pages(filter: SessionFilter, caller: SearchCaller): AsyncIterable<readonly MatchedSession[]>;
  /** @throws as {@link pages} */
  count(filter: SessionFilter, caller: SearchCaller): Promise<MatchedSessions>;
}

/**
 * Creates the search. One step runs at a time, because steps use the connections with which instances sync; callers take
 * turns.
 */
export function createSessionSearch({ store, clock, timers }: SessionSearchDeps): SessionSearch {
  const limits = {
    atOnceMax: 1,
    atOncePerCallerMax: 1,
    waitingPerCallerMax: WAITING_SEARCHES_PER_CALLER_MAX,
    refusal: new AuthError('RATE_LIMITED', 'too many searches for sessions wait', { retryAfterMs: 1000 }),
  };
  const turns = createTurns(limits, timers);
  const step = async <T>(
    { actor, signal }: SearchCaller,
    { role }: SessionFilter,
    work: (sessions: Pick<SessionRows, 'match' | 'countMatching'>) => Promise<T>,
  ): Promise<T> => {
    const endTurn = await turns.take(actor, signal);
    try {
      return await store.transaction(async (tx) => {
        if (role !== undefined) requireKnownRoles(await tx.policy.current(), [role], () => 'filter.role');
        return await work(tx.sessions);
      });
    } finally {
      endTurn();
    }
  };
  async function* pages(
    filter: SessionFilter,
    caller: SearchCaller,
    limit: number,
  ): AsyncIterable<readonly MatchedSession[]> {
    let after: string | undefined;
    do {
      const page = { after, limit };
      const { sessions, next } = await step(caller, filter, (rows) => rows.match(filter, page));
      if (sessions.length > 0) yield sessions;
      after = next;
    } while (after !== undefined);
  }
  return {
    pages: (filter, caller) => pages(checkFilter(filter, clock), caller, SESSIONS_AT_ONCE),
    count: async (given, caller) => {
      const filter = checkFilter(given, clock);
      let sessionCount = 0;
      let after: string | undefined;
      do {
        const from = after;
        const { count, next } = await step(caller, filter, (rows) => rows.countMatching(filter, from));
        sessionCount += count;
        after = next;
      } while (after !== undefined);
      const sessions: MatchedSession[] = [];
      for await (const page of pages(filter, caller, SESSIONS_LISTED_MAX)) {
        sessions.push(...page.slice(0, SESSIONS_LISTED_MAX - sessions.length));
        if (sessions.length >= SESSIONS_LISTED_MAX) break;
      }
      return { sessionCount, sessions };
    },
  };
}

/**
 * Checks a filter, apart from its role. A condition that no session can meet is rejected, because a revocation that ends
 * nothing looks like one that had nothing to end. So is a filter that every session meets: that is what OpenEpoch is for.
 *
 * @returns the filter with the network as events have it
 * @throws ServiceError FIELD_INVALID
 */
function checkFilter(filter: SessionFilter, { wallMs }: Clock): SessionFilter {
  if (Object.values(filter).every((condition) => condition === undefined)) {
    throw invalidField('filter', 'must have a condition');
  }
  const { loggedInBeforeTime, network } = filter;
  if (loggedInBeforeTime !== undefined) checkTime(loggedInBeforeTime, wallMs());
  return { ...filter, network: network === undefined ? undefined : checkNetwork(network) };
}

function checkTime(time: Date, nowMs: number): void {
  const field = 'filter.logged_in_before_time';
  // Also rejects a date that is none.
  if (!(time.getTime() >= 0)) throw invalidField(field, 'must not be before 1970');
  if (time.getTime() > nowMs + CLOCK_SKEW_SECONDS * 1000)
    throw invalidField(field, 'must not be in the future');
}

/** The first half of an IPv6 address, as events show its network. */
const IPV6_NETWORK = /^[0-9a-f]{1,4}(:[0-9a-f]{1,4}){3}$/i;

/** The network as events have it: an IPv4 address, or the first four groups of an IPv6 address. */
function checkNetwork(text: string): string {
  const address = IPV6_NETWORK.test(text) ? `${text}::` : text.replace(/(?<=:.*)\/64$/, '');
  if (isIPv4(address)) return address;
  if (!isIPv6(address) || address.includes('%')) {
    throw invalidField('filter.network', 'must be an IPv4 address, an IPv6 address or the /64 of one');
  }
  return networkOf(new SocketAddress({ address, family: 'ipv6' }).address);
}
