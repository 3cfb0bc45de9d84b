/** The participants of a round: tokens that stay good, tokens that are revoked, and how. */

import { createHmac, randomUUID } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import { setTimeout as sleep } from 'node:timers/promises';
import { credentials } from '@grpc/grpc-js';
import { createServiceTokenSource } from '@portcullis/guard/client';
import { type RevokeRequest, RevokeWait } from '../../proto/gen/portcullis/revocation/v1/revocation.js';
import { ask } from '../../scripts/system/calls.js';
import type { Random } from '../shared/random.js';
import { nowMs } from '../shared/waiting.js';
import type { Clients } from './calls.js';
import {
  type Customer,
  type Environment,
  OTHER_ISSUER,
  OTHER_ISSUER_SECRET,
  VICTIM_CLIENT,
} from './environment.js';
import type { Player } from './load.js';
import { createNarrowing, grantRole } from './narrowing.js';
import type { RevocationOracle } from './revocation-oracle.js';

const REVOKE_TIMEOUT_MS = 2_000;
const RETRY_MS = 100;
const PATIENCE_MS = 60_000;

/** Number of customers that a round needs. */
export const CUSTOMERS_PER_ROUND = 8;

/** The target of Revoke. */
type Target = NonNullable<RevokeRequest['target']>;

/** A target to revoke, and the tokens that it hits. */
export interface Revocation {
  readonly name: string;
  /** What is revoked; or what revokes it, where that is not Revoke. */
  readonly target: Target | ((token: string) => Promise<void>);
  readonly hits: readonly Player[];
}

/** The participants of one round. */
export interface Participants {
  readonly players: readonly Player[];
  /** Targets, in the order in which they are revoked. */
  readonly revocations: readonly Revocation[];
  /** Revokes the key that signed all these tokens; the last step of a round. */
  readonly keyRevocation: Revocation;
  /** Sessions whose tokens stay good. */
  readonly good: readonly { readonly sessionId: string; readonly userId: string }[];
}

interface LoggedIn {
  readonly player: Player;
  readonly sessionId: string;
  readonly userId: string;
  readonly tokenId: string;
  readonly keyId: string;
}

/** Logs new participants in. */
export async function gatherParticipants(options: {
  environment: Environment;
  clients: Clients;
  random: Random;
  round: number;
}): Promise<Participants> {
  const { environment, clients, random, round } = options;
  // Changing the roles of a user ends the tokens of earlier rounds, so it is always the same one.
  const [customerOfRole, ...others] = environment.customers;
  const customers = random.shuffle(others);
  const logIn = (index: number, role: string): Promise<LoggedIn> =>
    logInAs(clients, customers[index], `${role} of round ${round}`);
  const [byToken, byTokenId, bySession, byUser, byUserToo, good, alsoGood] = await Promise.all([
    logIn(0, 'token'),
    logIn(1, 'token id'),
    logIn(2, 'session'),
    logIn(3, 'user'),
    logIn(3, "user's other session"),
    logIn(4, 'good user'),
    logIn(5, 'other good user'),
  ]);
  const narrowed = await logInNarrowed(clients, customerOfRole, {
    name: `user whose role loses a scope in round ${round}`,
    operator: environment.system.users.olga,
  });
  const [delegate, goodDelegate, service] = await Promise.all([
    delegateOf(environment, clients, bySession, `delegate of ${bySession.player.name}`),
    delegateOf(environment, clients, good, `delegate of ${good.player.name}`),
    serviceToken(environment, clients, `service of round ${round}`),
  ]);
  const tokenDelegate = await delegateOf(environment, clients, byToken, `delegate of ${byToken.player.name}`);
  const tenant = `tenant ${randomUUID()}`;
  const [tenantDelegate, otherTenantDelegate] = await Promise.all(
    [tenant, 'another'].map((name) => {
      const player = { token: foreignToken(name) };
      return delegateOf(environment, clients, { player }, `delegate of a user of ${name} in round ${round}`);
    }),
  );
  if (tenantDelegate === undefined || otherTenantDelegate === undefined) throw new TypeError('no delegates');
  const revocations: Revocation[] = [
    {
      name: 'token',
      target: { $case: 'token', value: byToken.player.token },
      hits: [byToken.player, tokenDelegate],
    },
    { name: 'token id', target: { $case: 'tokenId', value: byTokenId.tokenId }, hits: [byTokenId.player] },
    {
      name: 'session',
      target: { $case: 'sessionId', value: bySession.sessionId },
      hits: [bySession.player, delegate],
    },
    {
      name: 'user',
      target: { $case: 'userId', value: byUser.userId },
      hits: [byUser.player, byUserToo.player],
    },
    { name: 'client', target: { $case: 'clientId', value: VICTIM_CLIENT }, hits: [service] },
    {
      name: 'foreign',
      target: {
        $case: 'foreign',
        value: {
          issuer: OTHER_ISSUER,
          // The same identifiers at another issuer name another user.
          what: { $case: 'subject', value: good.userId },
        },
      },
      hits: [],
    },
    {
      name: 'tenant',
      target: {
        $case: 'foreign',
        value: {
          issuer: OTHER_ISSUER,
          what: { $case: 'claim', value: { claim: '/tenant', value: tenant } },
        },
      },
      hits: [tenantDelegate],
    },
    { name: 'scope of a role', target: createNarrowing(clients), hits: [narrowed.player] },
  ];
  const players = [
    ...[byToken, byTokenId, bySession, byUser, byUserToo, good, alsoGood, narrowed].map(
      ({ player }) => player,
    ),
    delegate,
    tokenDelegate,
    goodDelegate,
    tenantDelegate,
    otherTenantDelegate,
    service,
  ];
  return {
    players,
    revocations: random.shuffle(revocations),
    keyRevocation: { name: 'key', target: { $case: 'keyId', value: good.keyId }, hits: players },
    good: [good, alsoGood],
  };
}

/** Revokes targets as an operator. */
export class Revoker {
  readonly #environment: Environment;
  readonly #clients: Clients;
  readonly #oracle: RevocationOracle;
  #token: Promise<string> | undefined;

  constructor(options: { environment: Environment; clients: Clients; oracle: RevocationOracle }) {
    this.#environment = options.environment;
    this.#clients = options.clients;
    this.#oracle = options.oracle;
  }

  /** Logs in again: the current token may have been revoked, or may expire soon. */
  async prepare(): Promise<void> {
    const { username, password } = this.#environment.system.users.olga;
    const token = logInAs(this.#clients, { username, password }, 'revoker').then(
      ({ player }) => player.token,
    );
    this.#token = token;
    // The next caller logs in again.
    token.catch(() => {
      if (this.#token === token) this.#token = undefined;
    });
    await token;
  }

  /** The operator's token. */
  async token(): Promise<string> {
    if (this.#token === undefined) await this.prepare();
    return (await this.#token) ?? '';
  }

  /** Tries once; never rejects. @returns whether the response was OK */
  async once({ target, hits }: Revocation): Promise<boolean> {
    const { revocation } = this.#clients;
    try {
      const token = await this.token();
      this.#oracle.revoking(hits, nowMs());
      if (typeof target === 'function') await target(token);
      else {
        const request = {
          target,
          reason: 'the drill',
          wait: RevokeWait.REVOKE_WAIT_NONE,
          targets: [],
          dryRun: false,
          fences: [],
        };
        await ask(revocation.revoke.bind(revocation), request, { token, timeoutMs: REVOKE_TIMEOUT_MS });
      }
    } catch {
      return false;
    }
    this.#oracle.revoked(hits, nowMs());
    return true;
  }

  /** Revokes tokens that were never issued, once; never rejects. */
  async revokeOthers(count: number): Promise<void> {
    const { revocation } = this.#clients;
    const targets = Array.from({ length: count }, () => ({
      target: { $case: 'tokenId', value: randomUUID() } as const,
    }));
    const wait = RevokeWait.REVOKE_WAIT_NONE;
    const request = { target: undefined, reason: 'the drill', wait, targets, fences: [], dryRun: false };
    const token = await this.token();
    await ask(revocation.revoke.bind(revocation), request, { token, timeoutMs: REVOKE_TIMEOUT_MS }).catch(
      () => undefined,
    );
  }

  /** Revokes the next key: the key set changes, and every token stays valid. Never rejects. */
  async revokeNextKey(): Promise<void> {
    const { auth } = this.#clients;
    const [header = ''] = (await this.token()).split('.');
    const { kid } = decoded(header);
    const published = await ask(auth.getKeys.bind(auth), {}).catch(() => undefined);
    const next = published?.keySet?.keys.find((key) => key.kid !== kid);
    if (next === undefined) return;
    await this.once({ name: 'next key', target: { $case: 'keyId', value: next.kid }, hits: [] });
  }

  /** Opens an epoch, once; never rejects. @returns whether the response was OK */
  async openEpoch(hits: readonly Player[]): Promise<boolean> {
    const { revocation } = this.#clients;
    try {
      const token = await this.token();
      this.#oracle.revoking(hits, nowMs());
      const request = { reason: 'the drill', requestId: randomUUID() };
      await ask(revocation.openEpoch.bind(revocation), request, { token, timeoutMs: REVOKE_TIMEOUT_MS });
    } catch {
      return false;
    }
    this.#oracle.revoked(hits, nowMs());
    return true;
  }

  /** Retries until the response is OK. @returns whether it was */
  async untilDone(revocation: Revocation, isLate: () => boolean): Promise<boolean> {
    while (!(await this.once(revocation))) {
      if (isLate()) return false;
      await sleep(RETRY_MS);
    }
    return true;
  }
}

/** Logs a user in, and retries while auth is recovering. */
export async function logInAs(
  clients: Clients,
  customer: Customer | undefined,
  name: string,
): Promise<LoggedIn> {
  if (customer === undefined) throw new TypeError('the drill has too few customers');
  const request = { ...customer, audiences: [], scopes: [], deviceName: 'drill' };
  const { accessToken } = await patiently(() => ask(clients.auth.login.bind(clients.auth), request));
  const [header = '', payload = ''] = accessToken.split('.');
  const { kid } = decoded(header);
  const { sid, sub, jti } = decoded(payload);
  return {
    player: { name, token: accessToken, kind: 'user' },
    sessionId: sid ?? '',
    userId: sub ?? '',
    tokenId: jti ?? '',
    keyId: kid ?? '',
  };
}

/** Gives the user a role that will lose its scope, and logs the user in with it. */
async function logInNarrowed(
  clients: Clients,
  customer: Customer | undefined,
  { name, operator }: { readonly name: string; readonly operator: Customer },
): Promise<LoggedIn> {
  const { userId } = await logInAs(clients, customer, name);
  const { username, password } = operator;
  const { player } = await logInAs(clients, { username, password }, 'operator');
  await patiently(() => grantRole(clients, { token: player.token, userId }));
  return await logInAs(clients, customer, name);
}

/** A token of a user of another issuer, with the longest lifetime. */
function foreignToken(tenant: string): string {
  const nowSeconds = Math.floor(Date.now() / 1000);
  const claims = {
    ...{ iss: OTHER_ISSUER, sub: 'mallory', aud: ['payment'], client_id: 'web', jti: randomUUID(), tenant },
    ...{ sid: randomUUID(), scope: 'read', iat: nowSeconds, exp: nowSeconds + 3600 },
  };
  const text = [{ alg: 'HS256', typ: 'JWT' }, claims]
    .map((part) => Buffer.from(JSON.stringify(part)).toString('base64url'))
    .join('.');
  return `${text}.${createHmac('sha256', OTHER_ISSUER_SECRET).update(text).digest('base64url')}`;
}

/** A token with which payment may act for a user at inventory. */
async function delegateOf(
  { processes, system }: Environment,
  { auth }: Clients,
  subject: { readonly player: Pick<Player, 'token'> },
  name: string,
): Promise<Player> {
  const source = createServiceTokenSource({
    address: processes.auth.address,
    credentials: credentials.createInsecure(),
    clientId: 'payment',
    clientKey: await readFile(system.secrets.clientKeyFiles.payment, 'utf8'),
    issuer: system.issuer,
  });
  try {
    const request = { subjectToken: subject.player.token, audience: 'inventory', scopes: ['inventory.read'] };
    const { accessToken } = await patiently(async () =>
      ask(auth.exchangeToken.bind(auth), request, { token: await source.get() }),
    );
    return { name, token: accessToken, kind: 'delegate' };
  } finally {
    source.close();
  }
}

async function serviceToken(
  { victimClientSecret }: Environment,
  { auth }: Clients,
  name: string,
): Promise<Player> {
  const { accessToken } = await patiently(() =>
    ask(auth.issueServiceToken.bind(auth), {
      clientId: VICTIM_CLIENT,
      credential: { $case: 'clientSecret' as const, value: victimClientSecret },
      audiences: [],
      scopes: [],
    }),
  );
  return { name, token: accessToken, kind: 'service' };
}

/** Retries a limited number of times; throws the last failure. */
async function patiently<T>(work: () => Promise<T>): Promise<T> {
  const deadlineMs = nowMs() + PATIENCE_MS;
  for (;;) {
    try {
      return await work();
    } catch (error) {
      if (nowMs() > deadlineMs) throw error;
      await sleep(RETRY_MS);
    }
  }
}

function decoded(part: string): Readonly<Record<string, string>> {
  return JSON.parse(Buffer.from(part, 'base64url').toString()) as Record<string, string>;
}
