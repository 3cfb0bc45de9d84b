/**
 * The canary: auth issues a token that nobody holds, revokes it, and measures how long each instance takes to confirm that it
 * enforces the revocation. Receipts are measured in the same way, so the canary is what a caller of Revoke would see.
 */

import type { Clock } from '@portcullis/guard/clock';
import { ServiceError } from '@portcullis/guard/errors';
import { OWN_AUDIENCE } from '../accounts/roles.js';
import { CANARY_CLIENT } from '../clients/client-ids.js';
import type { Tokens } from '../tokens/tokens.js';
import type { AuthStore } from '../transaction.js';
import type { InstanceReceipt } from './enforcement-watch.js';
import type { Fences } from './fences.js';
import type { Instances } from './instances.js';
import { tokenRevocation } from './log.js';
import { type RevocationGroups, receiptOfWritten, type Written } from './revocation-groups.js';
import { waitUntilEnforced } from './revoke.js';

/** Default time between two measurements, in seconds: none are made. */
export const CANARY_SECONDS_DEFAULT = 0;

/** Maximum of the configurable time between two measurements, in seconds. */
export const CANARY_SECONDS_MAX = 3600;

/** Lifetime of a canary token, in seconds: its entry leaves the log soon. */
const LIFETIME_SECONDS = 60;

/** Maximum number of pages of instances that are read; further instances are measured all the same, but not compared. */
const PAGES_MAX = 100;
const PAGE_SIZE = 200;

/**
 * How a measurement ended: `completed`; `failed` when auth could not issue, verify or revoke the token; `admitted` when auth's
 * own guard accepted the token after every instance of auth had confirmed the revocation.
 */
export const CANARY_OUTCOMES = ['completed', 'failed', 'admitted'] as const;

/** One of {@link CANARY_OUTCOMES}. */
type CanaryOutcome = (typeof CANARY_OUTCOMES)[number];

/** Receives what was measured. */
export interface CanaryObserver {
  /** From before the revocation was written until auth knew that an instance of the service enforces it. */
  confirmed(service: string, seconds: number): void;
  /** An instance of the service that held a lease has not confirmed within the bound. It refuses calls by then. */
  unconfirmed(service: string): void;
  ran(outcome: CanaryOutcome): void;
}

/** The turns of the replicas. */
export interface CanaryTurns {
  /** Whether a measurement is due. Of several replicas that ask, one gets true. */
  claim(intervalSeconds: number): Promise<boolean>;
}

interface CanaryLog {
  warn(fields: object, message: string): void;
  error(fields: object, message: string): void;
}

/** The collaborators of the canary. */
export interface CanaryDeps {
  readonly intervalSeconds: number;
  readonly turns: CanaryTurns;
  readonly store: AuthStore;
  /** Those in which tokens are revoked: the canary waits its turn as every caller of Revoke does. */
  readonly groups: RevocationGroups;
  readonly tokens: Pick<Tokens, 'mint'>;
  readonly instances: Pick<Instances, 'wait' | 'list'>;
  readonly fences: Pick<Fences, 'wait'>;
  /** Auth's own guard: returns the `jti` of a token that it accepts. @throws ServiceError TOKEN_REVOKED … */
  readonly accept: (token: string) => Promise<string>;
  readonly observer: CanaryObserver;
  readonly clock: Clock;
  readonly log: CanaryLog;
}

/** Measures if it is this replica's turn. @throws what keeps a token from being issued or revoked */
export async function measureRevocation(deps: CanaryDeps, signal: AbortSignal): Promise<void> {
  if (!(await deps.turns.claim(deps.intervalSeconds))) return;
  try {
    const outcome = await measure(deps, signal);
    if (outcome !== undefined) deps.observer.ran(outcome);
  } catch (error) {
    deps.observer.ran('failed');
    throw error;
  }
}

/** @returns undefined when the process stops meanwhile */
async function measure(deps: CanaryDeps, signal: AbortSignal): Promise<CanaryOutcome | undefined> {
  const { store, tokens, clock, observer } = deps;
  const before = await followers(deps);
  const { token, expireTime } = await store.transaction(async (tx) =>
    tokens.mint(tx, {
      subject: CANARY_CLIENT,
      clientId: CANARY_CLIENT,
      audiences: [OWN_AUDIENCE],
      // Nothing can be done with it, even if it were to leave the process.
      scopes: [],
      roles: [],
      clients: [[CANARY_CLIENT, 1n]],
      notAfter: new Date((await tx.databaseTime()).getTime() + LIFETIME_SECONDS * 1000),
    }),
  );
  const tokenId = await deps.accept(token);
  const startedMs = clock.monotonicMs();
  const written = await revokeToken(deps.groups, tokenId, expireTime);
  const writtenMs = written.committedAtMs - startedMs;
  const { instances } = await waitUntilEnforced(deps, written, {
    wait: 'KNOWN_INSTANCES',
    signal,
    enforcedEverywhereBy: receiptOfWritten(written).enforcedEverywhereBy,
  });
  if (signal.aborted) return undefined;
  // One that began to follow the log meanwhile took its time to start.
  const measured = instances.filter((one) => before.has(nameOf(one)));
  for (const { service, state, milliseconds } of measured) {
    if (state === 'ENFORCED') observer.confirmed(service, (writtenMs + milliseconds) / 1000);
  }
  await reportUnconfirmed(deps, measured);
  const own = instances.filter(({ service }) => service === OWN_AUDIENCE);
  if (own.some(({ state }) => state !== 'ENFORCED') || !(await isAccepted(deps, token))) return 'completed';
  deps.log.error(
    { event: 'canary_admitted', tokenId },
    'a revoked canary token was accepted after the revocation was confirmed',
  );
  return 'admitted';
}

async function revokeToken(
  groups: RevocationGroups,
  tokenId: string,
  tokenExpireTime: Date,
): Promise<Written> {
  const entry = {
    ...tokenRevocation(tokenId),
    tokenExpireTime,
    reason: 'canary',
    actor: OWN_AUDIENCE,
    acknowledge: true,
    canary: true,
  };
  const written = await groups.write({ caller: CANARY_CLIENT, decide: () => ({ entry }) });
  if (written === undefined) throw new TypeError('the log has written no entry');
  return written;
}

/** Instances that stop say so, and are not expected to confirm anything. */
async function reportUnconfirmed(deps: CanaryDeps, measured: readonly InstanceReceipt[]): Promise<void> {
  const silent = measured.filter(({ state }) => state !== 'ENFORCED');
  if (silent.length === 0) return;
  const following = await followers(deps, { withLease: false });
  const unconfirmed = silent.filter((one) => following.has(nameOf(one)));
  for (const { service } of unconfirmed) deps.observer.unconfirmed(service);
  if (unconfirmed.length === 0) return;
  deps.log.warn(
    {
      event: 'canary_unconfirmed',
      instances: unconfirmed.slice(0, 20).map(nameOf),
      count: unconfirmed.length,
    },
    'instances have not confirmed a revocation within the bound',
  );
}

/** The names of the instances that follow the log and have not said that they stop. */
async function followers(
  { instances }: Pick<CanaryDeps, 'instances'>,
  { withLease = true }: { readonly withLease?: boolean } = {},
): Promise<ReadonlySet<string>> {
  const names = new Set<string>();
  let pageToken = '';
  for (let page = 0; page < PAGES_MAX; page++) {
    const { instances: listed, nextPageToken } = await instances.list({ pageSize: PAGE_SIZE, pageToken });
    for (const one of listed) {
      if (!one.left && (!withLease || one.leaseLeftMs > 0)) names.add(nameOf(one));
    }
    pageToken = nextPageToken;
    if (pageToken === '') break;
  }
  return names;
}

function nameOf({ service, instance }: Pick<InstanceReceipt, 'service' | 'instance'>): string {
  return `${service}/${instance.toString('hex')}`;
}

async function isAccepted({ accept }: CanaryDeps, token: string): Promise<boolean> {
  try {
    await accept(token);
    return true;
  } catch (error) {
    if (error instanceof ServiceError) return false;
    throw error;
  }
}
