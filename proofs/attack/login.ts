/** Attacks on how tokens are obtained: passwords, names, refresh tokens, client assertions, and rate limits. */

import {
  createHmac,
  createPublicKey,
  generateKeyPairSync,
  type KeyObject,
  randomBytes,
  randomUUID,
} from 'node:crypto';
import { Metadata, status } from '@grpc/grpc-js';
import { errorOf } from '@portcullis/guard/client';
import { LoginRequest, RefreshRequest, type RefreshResponse } from '../../proto/gen/auth/v1/auth_service.js';
import { IssueServiceTokenRequest } from '../../proto/gen/portcullis/token/v1/token.js';
import { ask } from '../../scripts/system/calls.js';
import type { Random } from '../shared/random.js';
import { median } from '../shared/statistics.js';
import type { Answer } from '../shared/wire.js';
import { expectNotServed, expectRefusal, forEach, runClass } from './attempts.js';
import type { Environment } from './environment.js';
import { type Claims, claimsIn, encode, jsonText, segmentsOf, signedToken } from './forge.js';
import { waitUntilRefusedEverywhere } from './tokens.js';

const LOGIN = '/auth.v1.AuthService/Login';
const REFRESH = '/auth.v1.AuthService/Refresh';
const ISSUE = '/auth.v1.AuthService/IssueServiceToken';
const AT_ONCE = 50;
const REFRESH_MUTANTS = 400;
/** Samples of each kind when response times are compared; below the rate limit for one name. */
const TIMING_SAMPLES = 30;
/** The largest ratio of the median response times for known and unknown names. */
const TIMING_RATIO_MAX = 1.5;
/** The largest number of guesses at one name that are answered before the rate limit. */
const GUESSES_MAX = 60;
/** Text that fits into the request of a public method, but into no field. */
const LONG = 'a'.repeat(10_000);
/** Text that fits into no request of a public method. */
const TOO_LONG = 'a'.repeat(1_000_000);
/** The longest lock-out of a name, in milliseconds; it also locks out the owner. */
const LOCKED_OUT_MS_MAX = 15 * 60_000;

/** The rate limits come last, because they lock the names out for a while. */
export async function attackLogin(environment: Environment, random: Random): Promise<void> {
  await attackRefreshReuse(environment);
  await attackRefreshAtOnce(environment);
  await attackRefreshRetry(environment);
  await attackWithRefreshMutants(environment, random);
  await attackScopes(environment);
  await attackNames(environment);
  await attackWithAssertions(environment);
  await attackTiming(environment);
  await attackLimits(environment);
}

// --- refresh tokens

async function attackRefreshReuse(environment: Environment): Promise<void> {
  const className = 'refresh: an old token again';
  await runClass(environment, className, async () => {
    const { board } = environment;
    const { refreshToken, accessToken } = await environment.logIn('bob');
    const second = await refresh(environment, refreshToken);
    const third = await refresh(environment, second.refreshToken);
    board.holds(
      className,
      (await refreshOutcome(environment, refreshToken)) === INVALID,
      'the first token again',
    );
    board.holds(
      className,
      (await refreshOutcome(environment, third.refreshToken)) === INVALID,
      'the latest after that',
    );
    for (const token of [accessToken, second.accessToken, third.accessToken]) {
      board.holds(
        className,
        await waitUntilRefusedEverywhere(environment, token),
        'an access token of the session is still valid',
      );
    }
    board.holds(
      className,
      (await refreshOutcome(environment, refreshToken)) === INVALID,
      'the first token once more',
    );
  });
}

async function attackRefreshAtOnce(environment: Environment): Promise<void> {
  const className = `refresh: ${AT_ONCE} at once`;
  await runClass(environment, className, async () => {
    const { refreshToken, accessToken } = await environment.logIn('bob');
    const outcomes = await Promise.all(
      Array.from({ length: AT_ONCE }, () => refresh(environment, refreshToken).catch(() => undefined)),
    );
    const winners = outcomes.filter((outcome) => outcome !== undefined);
    for (let index = 1; index < AT_ONCE; index += 1) {
      environment.board.holds(className, winners.length <= index, `${winners.length} winners`);
    }
    environment.board.holds(className, winners.length === 1, `${winners.length} winners`);
    for (const { accessToken: won, refreshToken: successor } of winners) {
      environment.board.holds(
        className,
        (await refreshOutcome(environment, successor)) === INVALID,
        "the winner's successor",
      );
      environment.board.holds(
        className,
        await waitUntilRefusedEverywhere(environment, won),
        "the winner's access token is still valid",
      );
    }
    environment.board.holds(
      className,
      await waitUntilRefusedEverywhere(environment, accessToken),
      'the access token is still valid',
    );
  });
}

/** As many retries as auth takes at once with one refresh token. */
const RETRIES_AT_ONCE = 8;

async function attackRefreshRetry(environment: Environment): Promise<void> {
  const className = 'refresh: a retry';
  await runClass(environment, className, async () => {
    const { board } = environment;
    const first = await environment.logIn('bob');
    const requestId = randomUUID();
    const retries = await Promise.all(
      Array.from({ length: RETRIES_AT_ONCE }, () =>
        refresh(environment, first.refreshToken, requestId).catch(() => undefined),
      ),
    );
    const successors = new Set(retries.map((answer) => answer?.refreshToken));
    board.holds(
      className,
      successors.size === 1 && !successors.has(undefined),
      `${successors.size} successors`,
    );
    const [successor = ''] = successors;
    const next = await refresh(environment, successor);
    board.holds(
      className,
      (await refreshOutcome(environment, first.refreshToken, requestId)) === INVALID,
      'the same request after its successor was used',
    );
    board.holds(
      className,
      (await refreshOutcome(environment, next.refreshToken)) === INVALID,
      'the session is still active',
    );
    board.holds(
      className,
      await waitUntilRefusedEverywhere(environment, next.accessToken),
      'the access token is still valid',
    );
  });
}

/** A mutant is not a used token, so it must not end the session of the token that it is made from. */
async function attackWithRefreshMutants(environment: Environment, random: Random): Promise<void> {
  const className = 'refresh: mutants';
  const { refreshToken, accessToken } = await environment.logIn('bob');
  const mutants = [
    '',
    ' ',
    'x',
    'pcr_',
    refreshToken.slice(0, -1),
    `${refreshToken}A`,
    `${refreshToken}=`,
    ` ${refreshToken}`,
    `${refreshToken} `,
    `${refreshToken}\0`,
    `${refreshToken}\n`,
    refreshToken.toLowerCase(),
    refreshToken.slice(4),
    accessToken,
    `pcr_${refreshToken}`,
    refreshToken.replace('pcr_', 'PCR_'),
    LONG,
    TOO_LONG,
    "' OR '1'='1",
    `pcr_${randomBytes(32).toString('base64url')}`,
    `pcr_${'A'.repeat(43)}`,
    refreshToken.replace('_', '%5f'),
    ...Array.from({ length: REFRESH_MUTANTS }, () => flipped(refreshToken, random)),
  ].filter((mutant) => mutant !== refreshToken);
  await runClass(environment, className, async () => {
    const expected = await sendRefresh(environment, 'pcr_x');
    environment.board.holds(
      className,
      expected.status === status.UNAUTHENTICATED,
      `pcr_x: ${expected.fields}`,
    );
    const tooLong = await sendTooLong(environment, className, REFRESH);
    await forEach(
      mutants,
      async (mutant) => {
        const what = `${mutant.slice(0, 60)} (${mutant.length} characters)`;
        const { fields } = mutant === TOO_LONG ? tooLong : expected;
        expectRefusal(environment, className, what, await sendRefresh(environment, mutant), [fields]);
      },
      8,
    );
    // The refused attempts must not affect the real token.
    const after = await refreshOutcome(environment, refreshToken);
    if (after !== 'OK') environment.board.crashed(className, `the real token afterwards: ${after}`);
  });
}

/** Flips one bit, within ASCII, because protobuf strings must be UTF-8. */
function flipped(text: string, random: Random): string {
  const at = random.integer(0, text.length - 1);
  const code = text.charCodeAt(at) ^ (1 << random.integer(0, 6));
  return text.slice(0, at) + String.fromCharCode(code) + text.slice(at + 1);
}

const INVALID = 'UNAUTHENTICATED REFRESH_INVALID';

function refresh(
  environment: Environment,
  refreshToken: string,
  requestId: string = randomUUID(),
): Promise<RefreshResponse> {
  return ask(environment.auth.refresh.bind(environment.auth), { refreshToken, requestId });
}

async function refreshOutcome(
  environment: Environment,
  refreshToken: string,
  requestId?: string,
): Promise<string> {
  try {
    await refresh(environment, refreshToken, requestId);
    return 'OK';
  } catch (error) {
    const { code, reason } = errorOf(error);
    return `${status[code]} ${reason}`;
  }
}

/** A request that is too large is refused by its size alone, whatever it contains. */
async function sendTooLong(environment: Environment, className: string, path: string): Promise<Answer> {
  const answer = await environment.send(environment.target.auth, {
    path,
    message: Buffer.alloc(TOO_LONG.length),
  });
  const isBySize =
    answer.status === status.RESOURCE_EXHAUSTED && grpcMessageOf(answer).includes('request_bytes');
  environment.board.holds(className, isBySize, `a request of ${TOO_LONG.length} bytes: ${answer.fields}`);
  return answer;
}

function sendRefresh(environment: Environment, refreshToken: string): Promise<Answer> {
  const message = RefreshRequest.encode({ refreshToken, requestId: randomUUID() }).finish();
  return environment.send(environment.target.auth, { path: REFRESH, message });
}

// --- login

/** Granted scopes never exceed those of the roles, and never grow with a refresh. */
async function attackScopes(environment: Environment): Promise<void> {
  const className = 'login: more scopes than the roles give';
  const { username, password } = environment.system.users.bob;
  const usual = wordsOf(claimsIn(environment.bob.accessToken), 'scope');
  const wishes = [
    { scopes: ['auth.users.write'] },
    { scopes: ['auth.self', 'payment.manage'] },
    { scopes: ['*'] },
    { scopes: ['auth.sync', 'auth.exchange', 'auth.introspect'] },
    { scopes: ['auth.self auth.users.write'] },
    { audiences: ['auth', 'other'], scopes: ['auth.revoke'] },
    { audiences: ['*'] },
    { audiences: ['auth', 'auth.v1'] },
  ];
  await runClass(environment, className, async () => {
    for (const wish of wishes) {
      const request = { username, password, audiences: [], scopes: [], deviceName: 'attack', ...wish };
      const granted = await ask(environment.auth.login.bind(environment.auth), request).catch(
        () => undefined,
      );
      if (granted === undefined) {
        environment.board.refused(className);
        continue;
      }
      const refreshed = await refresh(environment, granted.refreshToken);
      for (const token of [granted.accessToken, refreshed.accessToken]) {
        const claims = claimsIn(token);
        const within = wordsOf(claims, 'scope').every((scope) => usual.includes(scope));
        const audiences = claims['aud'] as readonly string[];
        const known = audiences.every((audience) => ['auth', 'inventory', 'payment'].includes(audience));
        environment.board.holds(
          className,
          within && known,
          `${JSON.stringify(wish)} gave ${jsonText(claims)}`,
        );
      }
      const before = wordsOf(claimsIn(granted.accessToken), 'scope');
      const grown = wordsOf(claimsIn(refreshed.accessToken), 'scope').some(
        (scope) => !before.includes(scope),
      );
      environment.board.holds(className, !grown, `${JSON.stringify(wish)} has grown`);
    }
  });
}

function wordsOf(claims: Claims, name: string): readonly string[] {
  return String(claims[name]).split(' ').filter(Boolean);
}

/** Wrong names and wrong passwords get the same response. */
async function attackNames(environment: Environment): Promise<void> {
  const className = 'login: names and passwords nearly right';
  const { username, password } = environment.system.users.bob;
  const raw = Buffer.concat([Buffer.from([0x0a, 4]), Buffer.from('bob\xff', 'latin1'), field(2, password)]);
  await runClass(environment, className, async () => {
    const expected = await sendLogin(environment, 'nobody-at-all', password);
    environment.board.holds(
      className,
      expected.status === status.UNAUTHENTICATED,
      `unknown user: ${expected.fields}`,
    );
    const attempts = [
      ...similarNames(username).map((name) => ({
        what: `name ${JSON.stringify(name.slice(0, 30))}`,
        message: loginOf(name, password),
      })),
      ...similarPasswords(password).map((wrong) => ({
        what: `password of ${wrong.length} characters`,
        message: loginOf(username, wrong),
      })),
      { what: 'a name that is not UTF-8', message: raw },
    ];
    const tooLong = await sendTooLong(environment, className, LOGIN);
    for (const { what, message } of attempts) {
      const answer = await environment.send(environment.target.auth, { path: LOGIN, message });
      const { fields } = message.length > TOO_LONG.length ? tooLong : expected;
      expectRefusal(environment, className, what, answer, [fields]);
    }
    const after = await sendLogin(environment, username, password);
    if (after.status !== status.OK)
      environment.board.crashed(className, `the real password afterwards: ${after.fields}`);
  });
}

function similarNames(username: string): string[] {
  return [
    '',
    ' ',
    `${username} `,
    ` ${username}`,
    `${username}\0`,
    `${username}\n`,
    `${username}\u200b`,
    `${username}\uFFFD`,
    'b\u043eb',
    '\u0412ob',
    'bo\u0301b',
    `${username}@localhost`,
    `${username}' --`,
    "' OR '1'='1",
    '../bob',
    '*',
    '%',
    'b%b',
    'b_b',
    'admin',
    'root',
    'direct',
    'payment',
    '__proto__',
    LONG,
    TOO_LONG,
  ];
}

function similarPasswords(password: string): string[] {
  return [
    '',
    ' ',
    `${password} `,
    ` ${password}`,
    `${password}\0`,
    password.slice(0, -1),
    `${password}x`,
    password.toLowerCase() === password ? 'x' : password.toLowerCase(),
    LONG,
    TOO_LONG,
    `${password}${'\0'.repeat(300)}`,
  ];
}

/** A protobuf string field. */
function field(number: number, text: string): Buffer {
  const bytes = Buffer.from(text, 'utf8');
  return Buffer.concat([Buffer.from([(number << 3) | 2, bytes.length]), bytes]);
}

function loginOf(username: string, password: string): Uint8Array {
  return LoginRequest.encode({
    username,
    password,
    audiences: [],
    scopes: [],
    deviceName: 'attack',
  }).finish();
}

function sendLogin(environment: Environment, username: string, password: string): Promise<Answer> {
  return environment.send(environment.target.auth, { path: LOGIN, message: loginOf(username, password) });
}

/** Known and unknown names get the same bytes after the same time. */
async function attackTiming(environment: Environment): Promise<void> {
  const className = 'login: known and unknown names';
  const timed = async (name: string): Promise<{ answer: Answer; ms: number }> => {
    const startedMs = performance.now();
    const answer = await sendLogin(environment, name, 'not the password');
    return { answer, ms: performance.now() - startedMs };
  };
  await runClass(environment, className, async () => {
    const known: number[] = [];
    const unknown: number[] = [];
    // A name that was not guessed at from elsewhere: a closed one gets another response.
    const name = environment.system.users.bob.username;
    for (let index = 0; index < TIMING_SAMPLES; index += 1) {
      const one = await timed(name);
      const other = await timed(`nobody-${index}`);
      known.push(one.ms);
      unknown.push(other.ms);
      expectRefusal(environment, className, 'a known name', one.answer, [other.answer.fields]);
      environment.board.holds(className, other.answer.status === status.UNAUTHENTICATED, 'an unknown name');
    }
    const [knownMs, unknownMs] = [median(known), median(unknown)];
    const ratio = Math.max(knownMs, unknownMs) / Math.min(knownMs, unknownMs);
    environment.board.holds(
      className,
      ratio <= TIMING_RATIO_MAX,
      `known ${knownMs.toFixed(1)} ms, unknown ${unknownMs.toFixed(1)} ms`,
    );
  });
}

// --- client assertions

/** All bad client assertions get the same response. */
async function attackWithAssertions(environment: Environment): Promise<void> {
  const className = "a client's assertion";
  const { board } = environment;
  await runClass(environment, className, async () => {
    const expected = await issue(environment, 'x', 'nobody');
    board.holds(className, expected.status === status.UNAUTHENTICATED, `unknown client: ${expected.fields}`);
    const once = assertionOf(environment);
    const first = await issue(environment, once);
    if (first.status !== status.OK) {
      board.crashed(className, `a valid assertion was refused: ${first.fields}`);
    }
    const tooLong = await sendTooLong(environment, className, ISSUE);
    for (const [what, assertion] of [['sent twice', once] as const, ...badAssertions(environment)]) {
      const { fields } = assertion === TOO_LONG ? tooLong : expected;
      expectRefusal(environment, className, what, await issue(environment, assertion), [fields]);
    }
  });
}

function issue(environment: Environment, assertion: string, clientId = 'payment'): Promise<Answer> {
  const message = IssueServiceTokenRequest.encode({
    clientId,
    audiences: [],
    scopes: [],
    credential: { $case: 'clientAssertion', value: assertion },
  }).finish();
  return environment.send(environment.target.auth, { path: ISSUE, message });
}

/** An assertion of payment, valid but for the changes. */
function assertionOf(
  environment: Environment,
  changes: Claims = {},
  header: Claims = { alg: 'EdDSA' },
  key: KeyObject = environment.clientKey,
): string {
  const nowSeconds = Math.floor(Date.now() / 1000);
  const claims: Claims = {
    iss: 'payment',
    sub: 'payment',
    aud: environment.system.issuer,
    iat: nowSeconds,
    exp: nowSeconds + 60,
    jti: randomUUID(),
    ...changes,
  };
  return signedToken(encode(jsonText(header)), encode(jsonText(claims)), key);
}

function badAssertions(environment: Environment): (readonly [what: string, assertion: string])[] {
  const nowSeconds = Math.floor(Date.now() / 1000);
  const made = (changes: Claims): string => assertionOf(environment, changes);
  const stranger = generateKeyPairSync('ed25519').privateKey;
  const { payload } = segmentsOf(made({}));
  return [
    ['by a stranger', assertionOf(environment, {}, { alg: 'EdDSA' }, stranger)],
    ['none', `${encode(jsonText({ alg: 'none' }))}.${payload}.`],
    ['HMAC with the public key', hmacAssertion(environment.clientKey, payload)],
    ['for another audience', made({ aud: 'https://other.example' })],
    ['for several audiences', made({ aud: [environment.system.issuer, 'https://other.example'] })],
    ['without aud', made({ aud: undefined })],
    ['of another client', made({ iss: 'inventory', sub: 'inventory' })],
    ['of another issuer', made({ iss: 'inventory' })],
    ['without jti', made({ jti: undefined })],
    ['without exp', made({ exp: undefined })],
    ['expired', made({ iat: nowSeconds - 600, exp: nowSeconds - 300 })],
    ['that expires next week', made({ exp: nowSeconds + 7 * 86_400 })],
    ['not valid yet', made({ nbf: nowSeconds + 600 })],
    ['with crit', assertionOf(environment, {}, { alg: 'EdDSA', crit: ['x'], x: 1 })],
    ['an access token', environment.alice.accessToken],
    ['of ten kilobytes', LONG],
    ['of a megabyte', TOO_LONG],
    ['empty', ''],
  ];
}

function hmacAssertion(clientKey: KeyObject, payload: string): string {
  const pem = createPublicKey(clientKey).export({ type: 'spki', format: 'pem' }).toString();
  const signed = `${encode(jsonText({ alg: 'HS256' }))}.${payload}`;
  return `${signed}.${createHmac('sha256', pem).update(signed).digest('base64url')}`;
}

// --- rate limits

/**
 * Guesses at one name are limited, after the same number for known and unknown names. Other users can log in, and the
 * lock-out of the name is bounded.
 */
async function attackLimits(environment: Environment): Promise<void> {
  const className = 'the limits of login';
  await runClass(environment, className, async () => {
    const known = await guessUntilLimited(environment, environment.system.users.olga.username);
    const unknown = await guessUntilLimited(environment, 'nobody-of-note');
    const { board } = environment;
    for (const { guesses, limited } of [known, unknown]) {
      board.holds(className, guesses <= GUESSES_MAX, `${guesses} guesses were answered`);
      board.holds(className, limited.length > 0, 'no guess was limited');
      for (const answer of limited) {
        board.holds(className, answer.status === status.RESOURCE_EXHAUSTED, answer.fields);
        const waitMs = retryAfterMs(answer);
        board.holds(className, waitMs > 0 && waitMs <= LOCKED_OUT_MS_MAX, `a lock-out of ${waitMs} ms`);
      }
    }
    const alike =
      known.guesses === unknown.guesses &&
      grpcMessageOf(known.limited[0]) === grpcMessageOf(unknown.limited[0]);
    board.holds(
      className,
      alike,
      `${known.guesses} guesses at a known name, ${unknown.guesses} at an unknown one`,
    );
    const { username, password } = environment.system.users.alice;
    const bystander = await sendLogin(environment, username, password);
    if (bystander.status !== status.OK)
      board.crashed(className, `another user could not log in: ${bystander.fields}`);
    else board.refused(className);
    const guesser = await sendLogin(environment, environment.system.users.olga.username, 'not the password');
    expectNotServed(environment, className, 'one guess more', guesser);
  });
}

/** Sends several guesses at a time, as an attacker would. */
async function guessUntilLimited(
  environment: Environment,
  name: string,
): Promise<{ guesses: number; limited: Answer[] }> {
  const limited: Answer[] = [];
  let guesses = 0;
  const all = Array.from({ length: GUESSES_MAX + 5 }, (_, index) => index);
  await forEach(
    all,
    async (index) => {
      if (limited.length >= 3) return;
      const answer = await sendLogin(environment, name, `guess number ${index}`);
      if (answer.status === status.UNAUTHENTICATED) guesses += 1;
      else limited.push(answer);
    },
    4,
  );
  return { guesses, limited };
}

function grpcMessageOf(answer: Answer | undefined): string {
  return /grpc-message: (.*)/.exec(answer?.fields ?? '')?.[1] ?? '';
}

/** The delay of RetryInfo in the details of a refusal. */
function retryAfterMs(answer: Answer): number {
  const details = /grpc-status-details-bin: (.*)/.exec(answer.fields)?.[1] ?? '';
  const metadata = new Metadata();
  metadata.set('grpc-status-details-bin', Buffer.from(details, 'base64'));
  return errorOf({ code: answer.status, details: '', metadata }).retryAfterMs ?? 0;
}
