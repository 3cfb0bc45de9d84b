/** Attacks on admission: bad tokens of every kind, at every process, and other ways to claim an identity. */

import { randomBytes, randomUUID } from 'node:crypto';
import { ask } from '../../scripts/system/calls.js';
import type { Random } from '../shared/random.js';
import { median } from '../shared/statistics.js';
import { expectRefusal, forEach, runClass, sendBadToken, servedCalls } from './attempts.js';
import type { BadToken } from './bad-token.js';
import type { Environment, RequestChanges, Target } from './environment.js';
import { encode, jsonText, segmentsOf, signedToken } from './forge.js';
import { mutantsOf } from './mutants.js';
import { badTokens } from './token-catalogue.js';

const FLOOD_REQUESTS = 3_000;
const PROGRESS_EVERY = 500;
/** The median latency of calls with valid tokens during a flood of forged ones, at most. */
const GOOD_MEDIAN_MS_MAX = 250;
const REVOKED_WITHIN_MS = 10_000;

export async function attackTokens(
  environment: Environment,
  options: { readonly mutants: number; readonly random: Random },
): Promise<void> {
  const before = await environment.handledCalls();
  const honestBefore = environment.honest.calls;
  await attackWithCatalogue(environment);
  await attackWithSchemes(environment);
  await attackWithTwoValues(environment);
  await attackWithOtherMetadata(environment);
  await attackWithOtherAudiences(environment);
  await attackWithMutants(environment, options);
  const after = await environment.handledCalls();
  expectNoHandlerRan(environment, before, after, environment.honest.calls - honestBefore);
  await attackWithSpentTokens(environment);
  await floodWithUnknownKeys(environment);
}

async function attackWithCatalogue(environment: Environment): Promise<void> {
  const tokens = badTokens({
    forge: environment.forge,
    keys: environment.keys,
    good: environment.alice.accessToken,
    other: environment.bob.accessToken,
    refreshToken: environment.alice.refreshToken,
    clientKey: environment.clientKey,
    listenerUrl: environment.listener.url,
    keySetText: await publishedKeys(environment),
    nowSeconds: Math.floor(Date.now() / 1000),
  });
  const byClass = grouped(tokens);
  for (const [className, all] of byClass) {
    await runClass(environment, className, () => sendCatalogue(environment, all));
  }
  const className = 'a key of its own (jwk, x5c, jku, x5u)';
  const connections = environment.listener.connections();
  environment.board.holds(
    className,
    connections === 0,
    `a process made ${connections} connections to an address from a token`,
  );
}

function grouped(tokens: readonly BadToken[]): Map<string, BadToken[]> {
  const groups = new Map<string, BadToken[]>();
  for (const token of tokens) groups.set(token.className, [...(groups.get(token.className) ?? []), token]);
  return groups;
}

/** Sends each token to each process twice: to a method that every customer may call, and to one of the others. */
async function sendCatalogue(environment: Environment, tokens: readonly BadToken[]): Promise<void> {
  const attempts = tokens.flatMap((bad, index) =>
    environment.targets.flatMap((target) => {
      const token = typeof bad.token === 'string' ? bad.token : bad.token(target.audience);
      const value = `Bearer ${token}`;
      // An admitted call of Logout would end the session that the other tokens are made from.
      const others = target.guarded.filter(({ path }) => !path.endsWith('/Logout'));
      const path = others[index % others.length]?.path ?? target.path;
      return [
        { target, value, path: target.path },
        { target, value, path },
      ].map((attempt) => ({ ...attempt, className: bad.className, what: bad.what }));
    }),
  );
  await forEach(attempts, ({ target, ...attempt }) => sendBadToken(environment, target, attempt));
}

async function publishedKeys({ system }: Environment): Promise<string> {
  const response = await fetch(`http://${system.auth.opsAddress}/.well-known/jwks.json`);
  return await response.text();
}

async function attackWithSchemes(environment: Environment): Promise<void> {
  const className = 'schemes other than Bearer';
  const token = environment.alice.accessToken;
  const basic = Buffer.from(`alice:${token}`).toString('base64');
  const values = [
    ...['Bearer:', 'Bearer=', 'Bearer\t', 'Token', 'JWT', 'DPoP', 'Negotiate', 'Digest', 'token'].map(
      (scheme) => `${scheme} ${token}`,
    ),
    token,
    `${token} Bearer`,
    `Bearer${token}`,
    `Bearer  ${token}`,
    `Bearer Bearer ${token}`,
    `Basic ${basic}`,
    `Basic ${token}`,
    `Bearer ${token},Bearer ${token}`,
    `Basic x, Bearer ${token}`,
    `Bearer x, Bearer ${token}`,
    `Bearer realm="x", token="${token}"`,
    `Bearer token=${token}`,
    `Bearer "${token}"`,
    `"Bearer ${token}"`,
    'Bearer',
    'Bearer ',
    ' ',
    '',
    'null',
    'undefined',
    'Bearer null',
    'Bearer undefined',
    'Bearer [object Object]',
    `Bearer ${token} x`,
    `Bearer x ${token}`,
    `Bearer\u00a0${token}`,
    `\u00ef\u00bb\u00bfBearer ${token}`,
  ];
  await runClass(environment, className, () =>
    forEach(pairsOf(environment.targets, values), ([target, value]) =>
      value === ''
        ? sendAndExpect(environment, target, className, 'an empty value', { authorization: [''] }, 'either')
        : sendBadToken(environment, target, { className, what: value.slice(0, 30), value }),
    ),
  );
}

async function attackWithTwoValues(environment: Environment): Promise<void> {
  const className = 'two authorization values';
  const good = `Bearer ${environment.alice.accessToken}`;
  const pairs = [
    [good, good],
    [good, 'Bearer x'],
    ['Bearer x', good],
    [good, `Bearer ${environment.bob.accessToken}`],
    [good, ''],
    ['', good],
    ['Basic eDp4', good],
    [good, 'Basic eDp4'],
    [good, good, good],
    ['Bearer', environment.alice.accessToken],
  ];
  await runClass(environment, className, () =>
    forEach(pairsOf(environment.targets, pairs), ([target, authorization]) => {
      const what = authorization
        .map((value) => (value === good ? 'good' : JSON.stringify(value.slice(0, 12))))
        .join(' and ');
      return sendAndExpect(environment, target, className, what, { authorization }, 'invalid');
    }),
  );
}

/** Headers in which a careless server might look for a token. */
const TOKEN_HEADERS = [
  'authorization-bin',
  'proxy-authorization',
  'x-authorization',
  'x-access-token',
  'access-token',
  'token',
  'jwt',
  'grpc-authorization',
  'x-forwarded-authorization',
  'x-original-authorization',
  'cookie',
  'x-api-key',
  'bearer',
  'x-jwt-assertion',
  'x-goog-iap-jwt-assertion',
  'x-amzn-oidc-data',
  'x-endpoint-api-userinfo',
  'authorisation',
  'x-jwt-payload',
  'grpcgateway-authorization',
  'grpc-metadata-authorization',
  'sec-websocket-protocol',
];

/** Headers in which a careless server might look for an identity. */
const IDENTITY_HEADERS = [
  'x-user',
  'x-user-id',
  'x-forwarded-user',
  'x-remote-user',
  'remote-user',
  'x-auth-subject',
  'x-principal',
  'x-roles',
  'x-scopes',
  'x-client-cert',
  'x-forwarded-client-cert',
  'portcullis.call',
  'portcullis-call',
  'principal',
  'portcullis-principal',
  'x-portcullis-principal',
  '__proto__',
  'x-forwarded-for',
  'x-real-ip',
  'x-internal',
  'x-debug',
];

async function attackWithOtherMetadata(environment: Environment): Promise<void> {
  const className = 'identity in other metadata';
  const token = environment.alice.accessToken;
  const principal = jsonText({
    subject: environment.forge.claims['sub'],
    roles: ['admin'],
    scopes: ['auth.self'],
  });
  const metadata = [
    ...TOKEN_HEADERS.flatMap((name) => [[name, token] as const, [name, `Bearer ${token}`] as const]),
    ...IDENTITY_HEADERS.flatMap((name) => [
      [name, 'admin'] as const,
      [name, principal] as const,
      [name, '127.0.0.1'] as const,
    ]),
  ];
  await runClass(environment, className, () =>
    forEach(pairsOf(environment.targets, metadata), async ([target, field]) => {
      const what = `${field[0]}: ${field[1].slice(0, 12)}`;
      await sendAndExpect(environment, target, className, what, { metadata: [field] }, 'missing');
      const changes = { authorization: ['Bearer x'], metadata: [field] };
      await sendAndExpect(environment, target, className, `${what} beside a bad token`, changes, 'invalid');
    }),
  );
}

/** Valid tokens of the issuer, for another audience. */
async function attackWithOtherAudiences(environment: Environment): Promise<void> {
  const className = 'a real token of another service';
  const { username, password } = environment.system.users.alice;
  await runClass(environment, className, async () => {
    for (const audience of ['auth', 'inventory', 'payment']) {
      const request = { username, password, audiences: [audience], scopes: [], deviceName: 'attack' };
      const { accessToken } = await ask(environment.auth.login.bind(environment.auth), request);
      const value = `Bearer ${accessToken}`;
      const targets = environment.targets.filter((target) => target.audience !== audience);
      const attempts = targets.flatMap((target) => target.guarded.map(({ path }) => ({ target, path })));
      await forEach(attempts, ({ target, path }) =>
        sendBadToken(environment, target, {
          className,
          what: `a token for ${audience} at ${path}`,
          value,
          path,
        }),
      );
    }
  });
}

async function attackWithMutants(
  environment: Environment,
  options: { readonly mutants: number; readonly random: Random },
): Promise<void> {
  const { mutants, random } = options;
  const source = mutantsOf(environment.alice.accessToken, environment.bob.accessToken, {
    count: mutants,
    random,
  });
  let done = 0;
  await runClass(environment, 'mutants: every bit flipped', () =>
    forEach(source, async (mutant) => {
      // Each process in turn; over all mutants, every process receives every family.
      const target = environment.targets[done % environment.targets.length];
      done += 1;
      if (done % PROGRESS_EVERY === 0) environment.progress(mutant.className, done, mutants);
      if (target !== undefined) await sendBadToken(environment, target, mutant);
    }),
  );
}

/** Compares the processes' own metrics: only the calls with valid tokens reached a handler. */
function expectNoHandlerRan(
  environment: Environment,
  before: ReadonlyMap<string, number>,
  after: ReadonlyMap<string, number>,
  honestCalls: number,
): void {
  const paths = environment.targets
    .flatMap(({ guarded }) => guarded.map(({ path }) => path))
    .filter((path) => !isOwnTraffic(path));
  const served = servedCalls(before, after, paths);
  const count = [...served.values()].reduce((sum, more) => sum + more, 0);
  environment.board.holds(
    'no handler ran (by the count of the processes)',
    count === honestCalls,
    `${count} calls were not refused as unauthenticated, ${honestCalls} had valid tokens: ${JSON.stringify([...served])}`,
  );
}

/** Methods that the services call on auth. */
function isOwnTraffic(path: string): boolean {
  return /\/(Sync|Pull|ExchangeToken)$/.test(path);
}

/** Expired and revoked tokens: the response names that reason only when nothing else is wrong with the token. */
async function attackWithSpentTokens(environment: Environment): Promise<void> {
  const nowSeconds = Math.floor(Date.now() / 1000);
  // Beyond the accepted clock skew.
  const expired = { iat: nowSeconds - 300, exp: nowSeconds - 30 };
  await runClass(environment, 'expired', () => attackSpent(environment, 'expired', expired));
  const { accessToken } = await environment.logIn('alice');
  const { sid } = JSON.parse(Buffer.from(segmentsOf(accessToken).payload, 'base64url').toString('utf8')) as {
    sid: string;
  };
  await ask(environment.auth.logout.bind(environment.auth), {}, { token: accessToken });
  await waitUntilRefusedEverywhere(environment, accessToken);
  await runClass(environment, 'revoked', () => attackSpent(environment, 'revoked', { sid }));
}

async function attackSpent(
  environment: Environment,
  className: string,
  spent: Record<string, unknown>,
): Promise<void> {
  const { forge } = environment;
  const fresh = (): Record<string, unknown> => ({ ...spent, jti: randomUUID() });
  const [first] = environment.targets;
  if (first === undefined) return;
  const expected = await environment.send(first, { authorization: [`Bearer ${forge.withClaims(fresh())}`] });
  environment.board.holds(className, expected.status === 16, `${className} alone: ${expected.fields}`);
  for (const target of environment.targets) {
    for (const { path } of target.guarded) {
      const answer = await environment.send(target, {
        path,
        authorization: [`Bearer ${forge.withClaims(fresh())}`],
      });
      expectRefusal(environment, className, `${target.process.name} ${path}`, answer, [expected.fields]);
    }
    const spentToken = forge.withClaims(fresh());
    const { header, payload, signature } = segmentsOf(spentToken);
    const altered = signature.startsWith('A') ? `B${signature.slice(1)}` : `A${signature.slice(1)}`;
    const alsoBad = [
      ['a bad signature', `${header}.${payload}.${altered}`],
      ['another issuer', forge.withClaims({ ...fresh(), iss: 'https://other.example' })],
      ['another audience', forge.withClaims({ ...fresh(), aud: ['other'] })],
      ['no jti', forge.withClaims({ ...spent, jti: undefined })],
      ['another typ', signedToken(encode(jsonText({ ...forge.header, typ: 'JWT' })), payload, forge.key)],
      ['an unknown kid', signedToken(encode(jsonText({ ...forge.header, kid: 'x' })), payload, forge.key)],
      ['the key of broadcasts', signedToken(header, payload, environment.keys.broadcast.privateKey)],
    ] as const;
    for (const [what, token] of alsoBad) {
      await sendBadToken(environment, target, {
        className,
        what: `${className}, and ${what}`,
        value: `Bearer ${token}`,
      });
    }
  }
}

/** Waits until every instance refuses a revoked token. @returns false when one did not in time */
export async function waitUntilRefusedEverywhere(environment: Environment, token: string): Promise<boolean> {
  const latest = Date.now() + REVOKED_WITHIN_MS;
  for (const target of environment.targets) {
    for (;;) {
      const answer = await environment.send(target, { authorization: [`Bearer ${token}`] });
      if (answer.status === 16) break;
      if (Date.now() > latest) return false;
    }
  }
  return true;
}

/** Unknown key ids in a flood: no keys are fetched for them, and callers with valid tokens are served as before. */
async function floodWithUnknownKeys(environment: Environment): Promise<void> {
  const className = 'unknown kids at a high rate';
  const before = await environment.handledCalls();
  const startedMs = Date.now();
  let flooding = true;
  const goodMs: number[] = [];
  const measure = async (): Promise<void> => {
    while (flooding) {
      for (const target of environment.targets) {
        const sentMs = performance.now();
        const answer = await environment.send(target, {
          authorization: [`Bearer ${environment.bob.accessToken}`],
        });
        goodMs.push(performance.now() - sentMs);
        if (answer.status !== 0)
          environment.board.crashed(className, `a caller with a valid token was refused: ${answer.fields}`);
      }
    }
  };
  await runClass(environment, className, async () => {
    const measuring = measure();
    const floods = Array.from({ length: FLOOD_REQUESTS }, (_, index) => index);
    await forEach(floods, async (index) => {
      const target = environment.targets[index % environment.targets.length];
      const kid = randomBytes(16).toString('base64url');
      const value = `Bearer ${encode(jsonText({ ...environment.forge.header, kid }))}.${segmentsOf(environment.bob.accessToken).payload}.${encode(randomBytes(64))}`;
      if (target !== undefined)
        await sendBadToken(environment, target, { className, what: `kid ${kid}`, value });
    });
    flooding = false;
    await measuring;
  });
  const medianMs = median(goodMs);
  environment.board.holds(
    className,
    medianMs < GOOD_MEDIAN_MS_MAX,
    `calls with valid tokens had a median latency of ${medianMs.toFixed(1)} ms`,
  );
  const after = await environment.handledCalls();
  const more = (path: string): number =>
    [...after]
      .filter(([key]) => key.startsWith(path))
      .reduce((sum, [key, count]) => sum + count - (before.get(key) ?? 0), 0);
  const fetched = more('/auth.v1.AuthService/GetKeys');
  environment.board.holds(className, fetched === 0, `keys were fetched ${fetched} times`);
  // An instance syncs at most once a second on its own; more syncs would be caused by the flood.
  const syncs = more('/portcullis.revocation.v1.RevocationService/Sync');
  const seconds = (Date.now() - startedMs) / 1000;
  environment.board.holds(
    className,
    syncs <= environment.targets.length * (seconds + 2),
    `${syncs} syncs in ${seconds.toFixed(1)} s`,
  );
}

async function sendAndExpect(
  environment: Environment,
  target: Target,
  className: string,
  what: string,
  changes: RequestChanges,
  expected: 'invalid' | 'missing' | 'either',
): Promise<void> {
  const { invalid, missing } = environment.refusals;
  const answer = await environment.send(target, changes);
  const exact = { invalid: [invalid], missing: [missing], either: [invalid, missing] }[expected];
  expectRefusal(environment, className, `${target.process.name}: ${what}`, answer, exact);
}

function pairsOf<T, U>(first: readonly T[], second: readonly U[]): (readonly [T, U])[] {
  return first.flatMap((one) => second.map((other) => [one, other] as const));
}
