/** Attacks on admission: every bad token there is, at every process, and everything that pretends to be one. */

import { randomBytes, randomUUID } from 'node:crypto';
import { ask } from '../../scripts/system/calls.js';
import type { Random } from '../shared/random.js';
import { median } from '../shared/statistics.js';
import { fireBadToken, forEach, judge, servedBetween, underWatch } from './attempts.js';
import type { Aim, Range, Target } from './environment.js';
import { encode, jsonText, sealed, segmentsOf } from './forge.js';
import { mutantsOf } from './mutants.js';
import { type BadToken, badTokens } from './token-catalogue.js';

const FLOOD_REQUESTS = 3_000;
const PROGRESS_EVERY = 500;
/** Good tokens are answered in at most this time, in the median, while forged ones pour in. */
export const GOOD_MEDIAN_MS_MAX = 250;
const REVOKED_WITHIN_MS = 10_000;

/** Tries all of it. */
export async function attackTokens(
  range: Range,
  options: { readonly mutants: number; readonly random: Random },
): Promise<void> {
  const before = await range.handled();
  const honestBefore = range.honest.calls;
  await attackWithCatalogue(range);
  await attackWithSchemes(range);
  await attackWithTwoValues(range);
  await attackWithOtherMetadata(range);
  await attackWithOtherAudiences(range);
  await attackWithMutants(range, options);
  const after = await range.handled();
  noHandlerRan(range, before, after, range.honest.calls - honestBefore);
  await attackWithSpentTokens(range);
  await floodWithUnknownKeys(range);
}

async function attackWithCatalogue(range: Range): Promise<void> {
  const tokens = badTokens({
    forge: range.forge,
    keys: range.keys,
    good: range.alice.accessToken,
    other: range.bob.accessToken,
    refreshToken: range.alice.refreshToken,
    clientKey: range.clientKey,
    listenerUrl: range.listener.url,
    keySetText: await publishedKeys(range),
    nowSeconds: Math.floor(Date.now() / 1000),
  });
  const byClass = grouped(tokens);
  for (const [className, all] of byClass) {
    await underWatch(range, className, () => fireCatalogue(range, all));
  }
  const className = 'a key of its own (jwk, x5c, jku, x5u)';
  const connections = range.listener.connections();
  range.board.holds(
    className,
    connections === 0,
    `${connections} connections were made to where a token pointed`,
  );
}

function grouped(tokens: readonly BadToken[]): Map<string, BadToken[]> {
  const groups = new Map<string, BadToken[]>();
  for (const token of tokens) groups.set(token.className, [...(groups.get(token.className) ?? []), token]);
  return groups;
}

/** Each token at each process: once at a method that any customer may call, once at one of the others in turn. */
async function fireCatalogue(range: Range, tokens: readonly BadToken[]): Promise<void> {
  const attempts = tokens.flatMap((bad, index) =>
    range.targets.flatMap((target) => {
      const token = typeof bad.token === 'string' ? bad.token : bad.token(target.audience);
      const value = `Bearer ${token}`;
      // Whoever got into Logout would end the session that the others are made from.
      const others = target.guarded.filter(({ path }) => !path.endsWith('/Logout'));
      const path = others[index % others.length]?.path ?? target.path;
      return [
        { target, value, path: target.path },
        { target, value, path },
      ].map((attempt) => ({ ...attempt, className: bad.className, what: bad.what }));
    }),
  );
  await forEach(attempts, ({ target, ...attempt }) => fireBadToken(range, target, attempt));
}

async function publishedKeys({ system }: Range): Promise<string> {
  const response = await fetch(`http://${system.auth.opsAddress}/.well-known/jwks.json`);
  return await response.text();
}

async function attackWithSchemes(range: Range): Promise<void> {
  const className = 'schemes other than Bearer';
  const token = range.alice.accessToken;
  const basic = Buffer.from(`alice:${token}`).toString('base64');
  const values = [
    ...[
      'bearer',
      'BEARER',
      'Bearer:',
      'Bearer=',
      'Bearer\t',
      'Token',
      'JWT',
      'DPoP',
      'Negotiate',
      'Digest',
      'token',
    ].map((scheme) => `${scheme} ${token}`),
    ...[
      token,
      `${token} Bearer`,
      `Bearer${token}`,
      `Bearer  ${token}`,
      `Bearer Bearer ${token}`,
      `Basic ${basic}`,
    ],
    ...[
      `Basic ${token}`,
      `Bearer ${token},Bearer ${token}`,
      `Basic x, Bearer ${token}`,
      `Bearer x, Bearer ${token}`,
    ],
    ...[
      `Bearer realm="x", token="${token}"`,
      `Bearer token=${token}`,
      `Bearer "${token}"`,
      `"Bearer ${token}"`,
    ],
    ...[
      'Bearer',
      'Bearer ',
      ' ',
      '',
      'null',
      'undefined',
      'Bearer null',
      'Bearer undefined',
      'Bearer [object Object]',
    ],
    ...[
      `Bearer ${token} x`,
      `Bearer x ${token}`,
      `Bearer\u00a0${token}`,
      `\u00ef\u00bb\u00bfBearer ${token}`,
    ],
  ];
  await underWatch(range, className, () =>
    forEach(each(range.targets, values), ([target, value]) =>
      value === ''
        ? fireExactly(range, target, className, 'an empty value', { authorization: [''] }, 'either')
        : fireBadToken(range, target, { className, what: value.slice(0, 30), value }),
    ),
  );
}

async function attackWithTwoValues(range: Range): Promise<void> {
  const className = 'two authorization values';
  const good = `Bearer ${range.alice.accessToken}`;
  const pairs = [
    [good, good],
    [good, 'Bearer x'],
    ['Bearer x', good],
    [good, `Bearer ${range.bob.accessToken}`],
    [good, ''],
    ['', good],
    ['Basic eDp4', good],
    [good, 'Basic eDp4'],
    [good, good, good],
    ['Bearer', range.alice.accessToken],
  ];
  await underWatch(range, className, () =>
    forEach(each(range.targets, pairs), ([target, authorization]) => {
      const what = authorization
        .map((value) => (value === good ? 'good' : JSON.stringify(value.slice(0, 12))))
        .join(' and ');
      return fireExactly(range, target, className, what, { authorization }, 'invalid');
    }),
  );
}

async function attackWithOtherMetadata(range: Range): Promise<void> {
  const className = 'identity in other metadata';
  const token = range.alice.accessToken;
  const names = [
    ...[
      'authorization-bin',
      'proxy-authorization',
      'x-authorization',
      'x-access-token',
      'access-token',
      'token',
      'jwt',
    ],
    ...[
      'grpc-authorization',
      'x-forwarded-authorization',
      'x-original-authorization',
      'cookie',
      'x-api-key',
      'bearer',
    ],
    ...[
      'x-jwt-assertion',
      'x-goog-iap-jwt-assertion',
      'x-amzn-oidc-data',
      'x-endpoint-api-userinfo',
      'authorisation',
    ],
    ...[
      'x-jwt-payload',
      'grpcgateway-authorization',
      'grpc-metadata-authorization',
      'sec-websocket-protocol',
    ],
  ];
  const identities = [
    ...[
      'x-user',
      'x-user-id',
      'x-forwarded-user',
      'x-remote-user',
      'remote-user',
      'x-auth-subject',
      'x-principal',
    ],
    ...[
      'x-roles',
      'x-scopes',
      'x-client-cert',
      'x-forwarded-client-cert',
      'portcullis.call',
      'portcullis-call',
      'principal',
    ],
    ...[
      'portcullis-principal',
      'x-portcullis-principal',
      '__proto__',
      'x-forwarded-for',
      'x-real-ip',
      'x-internal',
      'x-debug',
    ],
  ];
  const principal = jsonText({ subject: range.forge.claims['sub'], roles: ['admin'], scopes: ['auth.self'] });
  const metadata = [
    ...names.flatMap((name) => [[name, token] as const, [name, `Bearer ${token}`] as const]),
    ...identities.flatMap((name) => [
      [name, 'admin'] as const,
      [name, principal] as const,
      [name, '127.0.0.1'] as const,
    ]),
  ];
  await underWatch(range, className, () =>
    forEach(each(range.targets, metadata), async ([target, field]) => {
      const what = `${field[0]}: ${field[1].slice(0, 12)}`;
      await fireExactly(range, target, className, what, { metadata: [field] }, 'missing');
      const aim = { authorization: ['Bearer x'], metadata: [field] };
      await fireExactly(range, target, className, `${what} beside a bad token`, aim, 'invalid');
    }),
  );
}

/** Tokens that the issuer has made, and made for somebody else. */
async function attackWithOtherAudiences(range: Range): Promise<void> {
  const className = 'a real token of another service';
  const { username, password } = range.system.users.alice;
  await underWatch(range, className, async () => {
    for (const audience of ['auth', 'inventory', 'payment']) {
      const request = { username, password, audiences: [audience], scopes: [], deviceName: 'attack' };
      const { accessToken } = await ask(range.auth.login.bind(range.auth), request);
      const value = `Bearer ${accessToken}`;
      const targets = range.targets.filter((target) => target.audience !== audience);
      const attempts = targets.flatMap((target) => target.guarded.map(({ path }) => ({ target, path })));
      await forEach(attempts, ({ target, path }) =>
        fireBadToken(range, target, { className, what: `a token for ${audience} at ${path}`, value, path }),
      );
    }
  });
}

async function attackWithMutants(
  range: Range,
  options: { readonly mutants: number; readonly random: Random },
): Promise<void> {
  const { mutants, random } = options;
  const source = mutantsOf(range.alice.accessToken, range.bob.accessToken, { count: mutants, random });
  let done = 0;
  await underWatch(range, 'mutants: every bit flipped', () =>
    forEach(source, async (mutant) => {
      // Each process in turn; over all positions, every process sees every family.
      const target = range.targets[done % range.targets.length];
      done += 1;
      if (done % PROGRESS_EVERY === 0) range.progress(mutant.className, done, mutants);
      if (target !== undefined) await fireBadToken(range, target, mutant);
    }),
  );
}

/** What the processes themselves counted: nobody was served but the honest callers in between. */
function noHandlerRan(
  range: Range,
  before: ReadonlyMap<string, number>,
  after: ReadonlyMap<string, number>,
  honestCalls: number,
): void {
  const paths = range.targets
    .flatMap(({ guarded }) => guarded.map(({ path }) => path))
    .filter((path) => !isOwnTraffic(path));
  const served = servedBetween(before, after, paths);
  const count = [...served.values()].reduce((sum, more) => sum + more, 0);
  range.board.holds(
    'no handler ran (by the count of the processes)',
    count === honestCalls,
    `${count} calls were not refused as unauthenticated, ${honestCalls} were honest: ${JSON.stringify([...served])}`,
  );
}

/** What the services themselves ask of auth. */
function isOwnTraffic(path: string): boolean {
  return /\/(Sync|Pull|ExchangeToken)$/.test(path);
}

/** Expired and revoked tokens: that they are is told only about tokens in which nothing else is wrong. */
async function attackWithSpentTokens(range: Range): Promise<void> {
  const nowSeconds = Math.floor(Date.now() / 1000);
  // Further back than clocks may differ.
  const expired = { iat: nowSeconds - 300, exp: nowSeconds - 30 };
  await underWatch(range, 'expired', () => attackSpent(range, 'expired', expired));
  const { accessToken } = await range.logIn('alice');
  const { sid } = JSON.parse(Buffer.from(segmentsOf(accessToken).payload, 'base64url').toString('utf8')) as {
    sid: string;
  };
  await ask(range.auth.logout.bind(range.auth), {}, { token: accessToken });
  await untilRefusedEverywhere(range, accessToken);
  await underWatch(range, 'revoked', () => attackSpent(range, 'revoked', { sid }));
}

async function attackSpent(range: Range, className: string, spent: Record<string, unknown>): Promise<void> {
  const { forge } = range;
  const fresh = (): Record<string, unknown> => ({ ...spent, jti: randomUUID() });
  const [first] = range.targets;
  if (first === undefined) return;
  const expected = await range.fire(first, { authorization: [`Bearer ${forge.withClaims(fresh())}`] });
  range.board.holds(className, expected.status === 16, `${className} alone: ${expected.fields}`);
  for (const target of range.targets) {
    for (const { path } of target.guarded) {
      const answer = await range.fire(target, {
        path,
        authorization: [`Bearer ${forge.withClaims(fresh())}`],
      });
      judge(range, className, `${target.process.name} ${path}`, answer, [expected.fields]);
    }
    const spentToken = forge.withClaims(fresh());
    const { header, payload, signature } = segmentsOf(spentToken);
    const altered = signature.startsWith('A') ? `B${signature.slice(1)}` : `A${signature.slice(1)}`;
    const alsoBad = [
      ['a bad signature', `${header}.${payload}.${altered}`],
      ['another issuer', forge.withClaims({ ...fresh(), iss: 'https://other.example' })],
      ['another audience', forge.withClaims({ ...fresh(), aud: ['other'] })],
      ['no jti', forge.withClaims({ ...spent, jti: undefined })],
      ['another typ', sealed(encode(jsonText({ ...forge.header, typ: 'JWT' })), payload, forge.key)],
      ['an unknown kid', sealed(encode(jsonText({ ...forge.header, kid: 'x' })), payload, forge.key)],
      ['the key of broadcasts', sealed(header, payload, range.keys.broadcast.privateKey)],
    ] as const;
    for (const [what, token] of alsoBad) {
      await fireBadToken(range, target, {
        className,
        what: `${className}, and ${what}`,
        value: `Bearer ${token}`,
      });
    }
  }
}

/** Waits until the last instance has heard of a revocation. */
export async function untilRefusedEverywhere(range: Range, token: string): Promise<boolean> {
  const latest = Date.now() + REVOKED_WITHIN_MS;
  for (const target of range.targets) {
    for (;;) {
      const answer = await range.fire(target, { authorization: [`Bearer ${token}`] });
      if (answer.status === 16) break;
      if (Date.now() > latest) return false;
    }
  }
  return true;
}

/** Keys nobody has: no keys are fetched for them, and who has a good token does not notice. */
async function floodWithUnknownKeys(range: Range): Promise<void> {
  const className = 'unknown kids at a high rate';
  const before = await range.handled();
  const startedMs = Date.now();
  let flooding = true;
  const goodMs: number[] = [];
  const measure = async (): Promise<void> => {
    while (flooding) {
      for (const target of range.targets) {
        const sentMs = performance.now();
        const answer = await range.fire(target, { authorization: [`Bearer ${range.bob.accessToken}`] });
        goodMs.push(performance.now() - sentMs);
        if (answer.status !== 0)
          range.board.crashed(className, `an honest caller was refused: ${answer.fields}`);
      }
    }
  };
  await underWatch(range, className, async () => {
    const measuring = measure();
    const floods = Array.from({ length: FLOOD_REQUESTS }, (_, index) => index);
    await forEach(floods, async (index) => {
      const target = range.targets[index % range.targets.length];
      const kid = randomBytes(16).toString('base64url');
      const value = `Bearer ${encode(jsonText({ ...range.forge.header, kid }))}.${segmentsOf(range.bob.accessToken).payload}.${encode(randomBytes(64))}`;
      if (target !== undefined) await fireBadToken(range, target, { className, what: `kid ${kid}`, value });
    });
    flooding = false;
    await measuring;
  });
  const medianMs = median(goodMs);
  range.board.holds(
    className,
    medianMs < GOOD_MEDIAN_MS_MAX,
    `good tokens took ${medianMs.toFixed(1)} ms in the median`,
  );
  const after = await range.handled();
  const more = (path: string): number =>
    [...after]
      .filter(([key]) => key.startsWith(path))
      .reduce((sum, [key, count]) => sum + count - (before.get(key) ?? 0), 0);
  const fetched = more('/auth.v1.AuthService/GetKeys');
  range.board.holds(className, fetched === 0, `keys were fetched ${fetched} times`);
  // Each instance asks once a second at most by itself; more would follow from what it was sent.
  const syncs = more('/portcullis.revocation.v1.RevocationService/Sync');
  const seconds = (Date.now() - startedMs) / 1000;
  range.board.holds(
    className,
    syncs <= range.targets.length * (seconds + 2),
    `${syncs} syncs in ${seconds.toFixed(1)} s`,
  );
}

async function fireExactly(
  range: Range,
  target: Target,
  className: string,
  what: string,
  aim: Aim,
  expected: 'invalid' | 'missing' | 'either',
): Promise<void> {
  const { invalid, missing } = range.refusals;
  const answer = await range.fire(target, aim);
  const exact = { invalid: [invalid], missing: [missing], either: [invalid, missing] }[expected];
  judge(range, className, `${target.process.name}: ${what}`, answer, exact);
}

function each<T, U>(first: readonly T[], second: readonly U[]): (readonly [T, U])[] {
  return first.flatMap((one) => second.map((other) => [one, other] as const));
}
