/** Reads the input of the review: keys, clients, passwords, clocks and instances as they are now. */

import type { Clock } from '@portcullis/guard/clock';
import { checkPublicKey, type PublicKeySource } from '@portcullis/guard/keys';
import { LRUCache } from 'lru-cache';
import type { Passwords } from '../accounts/passwords.js';
import type { ListedInstance } from '../revocation/instance-records.js';
import type { Instances } from '../revocation/instances.js';
import type { KeyFacts, ReviewFacts, ReviewSettings } from './review-findings.js';

/** Maximum number of privileged users whose passwords the review tries. */
const TRIED_USERS_MAX = 10;

/** Maximum number of users whose result is cached, so that each password is tried once. */
const VERDICTS_MAX = 1000;

/** Maximum number of instances that the review reads. */
const REVIEWED_INSTANCES_MAX = 1000;

const INSTANCES_PAGE_SIZE = 200;

/** The passwords that attackers try first. Shorter ones cannot be chosen. */
const COMMON_PASSWORDS = ['password', '12345678', 'changeme', 'portcullis'];

/** A user's password as it is stored. */
interface StoredPassword {
  readonly userId: string;
  readonly username: string;
  readonly passwordHash: string;
  readonly passwordVersion: bigint;
  /** A role of the user grants more of auth than the user's own affairs. */
  readonly isPrivileged: boolean;
}

/** The part of a key's facts that the check of public keys finds. */
type CheckedFacts = Omit<KeyFacts, 'algorithm'>;

/** The database as the review reads it; each list is bounded. */
export interface ReviewStore {
  time(): Promise<Date>;
  /** Keys of the current epoch that are not retired. */
  keys(): Promise<
    readonly (Omit<ReviewFacts['keys'][number], keyof CheckedFacts> & { readonly jwk: string })[]
  >;
  clients(): Promise<
    readonly {
      readonly clientId: string;
      readonly publicKeyPem: string | undefined;
      readonly hasSecret: boolean;
    }[]
  >;
  /** The enabled users with these names, and at most `privileged` users that are privileged. */
  users(which: { names: readonly string[]; privileged: number }): Promise<readonly StoredPassword[]>;
  /** The names of the enabled administrators: all if there are fewer than two, else two of them. */
  admins(): Promise<readonly string[]>;
  reporting(): Promise<ReviewFacts['reporting']>;
  recentLosses(): Promise<Pick<ReviewFacts, 'lostEvents' | 'changedLogs'>>;
}

export interface ReviewFactsDeps {
  readonly store: ReviewStore;
  readonly settings: ReviewSettings;
  readonly instances: Pick<Instances, 'list'>;
  readonly passwords: Pick<Passwords, 'verify'>;
  readonly clock: Clock;
}

/** Creates the function that reads the input of the review. */
export function createReviewFacts(deps: ReviewFactsDeps): () => Promise<ReviewFacts> {
  const { store, settings, passwords, clock } = deps;
  const verdicts = new LRUCache<string, boolean>({ max: VERDICTS_MAX });

  const isGuessable = async ({ userId, username, passwordHash, passwordVersion }: StoredPassword) => {
    const key = `${userId} ${passwordVersion}`;
    const known = verdicts.get(key);
    if (known !== undefined) return known;
    let verdict = false;
    // One after another, because logins share the same password workers.
    for (const guess of [username, `${username}123`, ...COMMON_PASSWORDS]) {
      verdict ||= await passwords.verify(passwordHash, guess);
    }
    verdicts.set(key, verdict);
    return verdict;
  };

  const usersNow = async (): Promise<ReviewFacts['users']> => {
    const names = settings.bootstrapUsers;
    const stored = await store.users({ names, privileged: TRIED_USERS_MAX });
    const users: ReviewFacts['users'][number][] = [];
    for (const user of stored) {
      users.push({
        username: user.username,
        isPrivileged: user.isPrivileged,
        hasFirstPassword: user.passwordVersion === 1n,
        isGuessable: user.isPrivileged && (await isGuessable(user)),
      });
    }
    return users;
  };

  return async () => {
    const beganMs = clock.wallMs();
    const now = await store.time();
    const endedMs = clock.wallMs();
    const [keys, clients, users, admins, instances, reporting, losses] = await Promise.all([
      store.keys(),
      store.clients(),
      usersNow(),
      store.admins(),
      instancesNow(deps.instances),
      store.reporting(),
      store.recentLosses(),
    ]);
    return {
      settings,
      now,
      clockDifferenceMs: beyond(now.getTime(), beganMs, endedMs),
      keys: await inTurn(keys, async ({ jwk, ...key }) => ({
        ...key,
        ...(await checkedFacts({ jwk: JSON.parse(jwk) })),
      })),
      clients: await inTurn(clients, async ({ clientId, publicKeyPem, hasSecret }) => ({
        clientId,
        proof: publicKeyPem === undefined ? (hasSecret ? 'secret' : 'none') : await keyFactsOf(publicKeyPem),
      })),
      users,
      admins,
      instances,
      reporting,
      ...losses,
    };
  };
}

/**
 * How far the database's time lies outside the round trip that read it, in milliseconds; positive when this clock is
 * ahead.
 */
function beyond(databaseMs: number, beganMs: number, endedMs: number): number {
  if (databaseMs > endedMs) return endedMs - databaseMs;
  return databaseMs < beganMs ? beganMs - databaseMs : 0;
}

async function instancesNow(instances: Pick<Instances, 'list'>): Promise<ListedInstance[]> {
  const all: ListedInstance[] = [];
  for (let pageToken = ''; all.length < REVIEWED_INSTANCES_MAX; ) {
    const page = await instances.list({ pageSize: INSTANCES_PAGE_SIZE, pageToken });
    all.push(...page.instances);
    pageToken = page.nextPageToken;
    if (pageToken === '') break;
  }
  return all;
}

async function keyFactsOf(pem: string): Promise<KeyFacts> {
  const facts = await checkedFacts({ pem });
  return { algorithm: facts.rsaBits === undefined ? 'other' : 'RSA', ...facts };
}

async function checkedFacts(source: PublicKeySource): Promise<CheckedFacts> {
  const checked = await checkPublicKey(source);
  return 'fault' in checked
    ? { rsaBits: undefined, fault: checked.fault }
    : { rsaBits: checked.rsaBits, fault: undefined };
}

/** Maps one after another, because the checks of keys share the thread pool with the verification of signatures. */
async function inTurn<In, Out>(items: readonly In[], map: (item: In) => Promise<Out>): Promise<Out[]> {
  const results: Out[] = [];
  for (const item of items) results.push(await map(item));
  return results;
}
