/** Attacks on what comes before a token: passwords, names, refresh tokens, clients' assertions, and their limits. */

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
import { forEach, judge, judgeNotServed, underWatch } from './attempts.js';
import type { Range } from './environment.js';
import { type Claims, claimsIn, encode, jsonText, sealed } from './forge.js';
import { untilRefusedEverywhere } from './tokens.js';
import type { Answer } from './wire.js';

const LOGIN = '/auth.v1.AuthService/Login';
const REFRESH = '/auth.v1.AuthService/Refresh';
const ISSUE = '/auth.v1.AuthService/IssueServiceToken';
const AT_ONCE = 50;
const REFRESH_MUTANTS = 400;
/** Samples of each kind when times are compared; fewer than guesses at one name are answered. */
const TIMING_SAMPLES = 30;
/** The medians of known and unknown names differ by at most this factor. */
export const TIMING_RATIO_MAX = 1.5;
/** So many guesses at one name are answered at most before they are limited. */
export const GUESSES_MAX = 60;
/** The longest time for which a name is closed to everybody, its owner included, in milliseconds. */
export const LOCKED_OUT_MS_MAX = 15 * 60_000;

/** Tries all of it; the limits last, because then the names are closed for a while. */
export async function attackLogin(range: Range, random: Random): Promise<void> {
  await attackRefreshReuse(range);
  await attackRefreshAtOnce(range);
  await attackRefreshRetry(range);
  await attackWithRefreshMutants(range, random);
  await attackScopes(range);
  await attackNames(range);
  await attackWithAssertions(range);
  await attackTiming(range);
  await attackLimits(range);
}

// --- refresh tokens

async function attackRefreshReuse(range: Range): Promise<void> {
  const className = 'refresh: an old token again';
  await underWatch(range, className, async () => {
    const { board } = range;
    const { refreshToken, accessToken } = await range.logIn('bob');
    const second = await refresh(range, refreshToken);
    const third = await refresh(range, second.refreshToken);
    board.holds(className, (await refreshOutcome(range, refreshToken)) === INVALID, 'the first token again');
    board.holds(
      className,
      (await refreshOutcome(range, third.refreshToken)) === INVALID,
      'the latest after that',
    );
    for (const token of [accessToken, second.accessToken, third.accessToken]) {
      board.holds(
        className,
        await untilRefusedEverywhere(range, token),
        'an access token of the session lives on',
      );
    }
    board.holds(
      className,
      (await refreshOutcome(range, refreshToken)) === INVALID,
      'the first token once more',
    );
  });
}

async function attackRefreshAtOnce(range: Range): Promise<void> {
  const className = `refresh: ${AT_ONCE} at once`;
  await underWatch(range, className, async () => {
    const { refreshToken, accessToken } = await range.logIn('bob');
    const outcomes = await Promise.all(
      Array.from({ length: AT_ONCE }, () => refresh(range, refreshToken).catch(() => undefined)),
    );
    const winners = outcomes.filter((outcome) => outcome !== undefined);
    for (let index = 1; index < AT_ONCE; index += 1) {
      range.board.holds(className, winners.length <= index, `${winners.length} winners`);
    }
    range.board.holds(className, winners.length === 1, `${winners.length} winners`);
    for (const { accessToken: won, refreshToken: successor } of winners) {
      range.board.holds(
        className,
        (await refreshOutcome(range, successor)) === INVALID,
        "the winner's successor",
      );
      range.board.holds(
        className,
        await untilRefusedEverywhere(range, won),
        "the winner's access token lives on",
      );
    }
    range.board.holds(
      className,
      await untilRefusedEverywhere(range, accessToken),
      'the access token lives on',
    );
  });
}

async function attackRefreshRetry(range: Range): Promise<void> {
  const className = 'refresh: a retry';
  await underWatch(range, className, async () => {
    const { board } = range;
    const first = await range.logIn('bob');
    const requestId = randomUUID();
    const retries = await Promise.all(
      Array.from({ length: 20 }, () => refresh(range, first.refreshToken, requestId).catch(() => undefined)),
    );
    const successors = new Set(retries.map((answer) => answer?.refreshToken));
    board.holds(
      className,
      successors.size === 1 && !successors.has(undefined),
      `${successors.size} successors`,
    );
    const [successor = ''] = successors;
    const next = await refresh(range, successor);
    board.holds(
      className,
      (await refreshOutcome(range, first.refreshToken, requestId)) === INVALID,
      'the same request after its successor was used',
    );
    board.holds(
      className,
      (await refreshOutcome(range, next.refreshToken)) === INVALID,
      'the session lives on',
    );
    board.holds(
      className,
      await untilRefusedEverywhere(range, next.accessToken),
      'the access token lives on',
    );
  });
}

/** None of them is a token, so none of them ends the session of the one they are made from. */
async function attackWithRefreshMutants(range: Range, random: Random): Promise<void> {
  const className = 'refresh: mutants';
  const { refreshToken, accessToken } = await range.logIn('bob');
  const mutants = [
    ...[
      '',
      ' ',
      'x',
      'pcr_',
      refreshToken.slice(0, -1),
      `${refreshToken}A`,
      `${refreshToken}=`,
      ` ${refreshToken}`,
    ],
    ...[
      `${refreshToken} `,
      `${refreshToken}\0`,
      `${refreshToken}\n`,
      refreshToken.toLowerCase(),
      refreshToken.slice(4),
    ],
    ...[
      accessToken,
      `pcr_${refreshToken}`,
      refreshToken.replace('pcr_', 'PCR_'),
      'a'.repeat(1_000_000),
      "' OR '1'='1",
    ],
    ...[
      `pcr_${randomBytes(32).toString('base64url')}`,
      `pcr_${'A'.repeat(43)}`,
      refreshToken.replace('_', '%5f'),
    ],
    ...Array.from({ length: REFRESH_MUTANTS }, () => flipped(refreshToken, random)),
  ].filter((mutant) => mutant !== refreshToken);
  await underWatch(range, className, async () => {
    const expected = await sendRefresh(range, 'pcr_x');
    range.board.holds(className, expected.status === status.UNAUTHENTICATED, `pcr_x: ${expected.fields}`);
    await forEach(
      mutants,
      async (mutant) => {
        judge(range, className, mutant.slice(0, 60), await sendRefresh(range, mutant), [expected.fields]);
      },
      8,
    );
    // Refused attempts have done no harm to whoever holds the real one.
    const after = await refreshOutcome(range, refreshToken);
    if (after !== 'OK') range.board.crashed(className, `the real token afterwards: ${after}`);
  });
}

/** Within ASCII, because protobuf's strings must be UTF-8. */
function flipped(text: string, random: Random): string {
  const at = random.integer(0, text.length - 1);
  const code = text.charCodeAt(at) ^ (1 << random.integer(0, 6));
  return text.slice(0, at) + String.fromCharCode(code) + text.slice(at + 1);
}

const INVALID = 'UNAUTHENTICATED REFRESH_INVALID';

function refresh(
  range: Range,
  refreshToken: string,
  requestId: string = randomUUID(),
): Promise<RefreshResponse> {
  return ask(range.auth.refresh.bind(range.auth), { refreshToken, requestId });
}

async function refreshOutcome(range: Range, refreshToken: string, requestId?: string): Promise<string> {
  try {
    await refresh(range, refreshToken, requestId);
    return 'OK';
  } catch (error) {
    const { code, reason } = errorOf(error);
    return `${status[code]} ${reason}`;
  }
}

function sendRefresh(range: Range, refreshToken: string): Promise<Answer> {
  const message = RefreshRequest.encode({ refreshToken, requestId: randomUUID() }).finish();
  return range.fire(range.target.auth, { path: REFRESH, message });
}

// --- login

/** What is granted is never more than the roles give, nor does it grow when it is refreshed. */
async function attackScopes(range: Range): Promise<void> {
  const className = 'login: more scopes than the roles give';
  const { username, password } = range.system.users.bob;
  const usual = wordsOf(claimsIn(range.bob.accessToken), 'scope');
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
  await underWatch(range, className, async () => {
    for (const wish of wishes) {
      const request = { username, password, audiences: [], scopes: [], deviceName: 'attack', ...wish };
      const granted = await ask(range.auth.login.bind(range.auth), request).catch(() => undefined);
      if (granted === undefined) {
        range.board.refused(className);
        continue;
      }
      const refreshed = await refresh(range, granted.refreshToken);
      for (const token of [granted.accessToken, refreshed.accessToken]) {
        const claims = claimsIn(token);
        const within = wordsOf(claims, 'scope').every((scope) => usual.includes(scope));
        const audiences = claims['aud'] as readonly string[];
        const known = audiences.every((audience) => ['auth', 'inventory', 'payment'].includes(audience));
        range.board.holds(className, within && known, `${JSON.stringify(wish)} gave ${jsonText(claims)}`);
      }
      const before = wordsOf(claimsIn(granted.accessToken), 'scope');
      const grown = wordsOf(claimsIn(refreshed.accessToken), 'scope').some(
        (scope) => !before.includes(scope),
      );
      range.board.holds(className, !grown, `${JSON.stringify(wish)} has grown`);
    }
  });
}

function wordsOf(claims: Claims, name: string): readonly string[] {
  return String(claims[name]).split(' ').filter(Boolean);
}

/** Everybody who is not the user is told the same. */
async function attackNames(range: Range): Promise<void> {
  const className = 'login: names and passwords nearly right';
  const { username, password } = range.system.users.bob;
  const names = [
    ...[
      '',
      ' ',
      `${username} `,
      ` ${username}`,
      `${username}\0`,
      `${username}\n`,
      `${username}\u200b`,
      `${username}\uFFFD`,
    ],
    ...['b\u043eb', '\u0412ob', 'bo\u0301b', `${username}@localhost`, `${username}' --`, "' OR '1'='1"],
    ...[
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
      'a'.repeat(1_000_000),
    ],
  ];
  const passwords = [
    ...['', ' ', `${password} `, ` ${password}`, `${password}\0`, password.slice(0, -1), `${password}x`],
    ...[
      password.toLowerCase() === password ? 'x' : password.toLowerCase(),
      'a'.repeat(1_000_000),
      `${password}${'\0'.repeat(300)}`,
    ],
  ];
  const raw = Buffer.concat([Buffer.from([0x0a, 4]), Buffer.from('bob\xff', 'latin1'), field(2, password)]);
  await underWatch(range, className, async () => {
    const expected = await sendLogin(range, 'nobody-at-all', password);
    range.board.holds(className, expected.status === status.UNAUTHENTICATED, `nobody: ${expected.fields}`);
    const attempts = [
      ...names.map((name) => ({
        what: `name ${JSON.stringify(name.slice(0, 30))}`,
        message: loginOf(name, password),
      })),
      ...passwords.map((wrong) => ({
        what: `password of ${wrong.length} characters`,
        message: loginOf(username, wrong),
      })),
      { what: 'a name that is not UTF-8', message: raw },
    ];
    for (const { what, message } of attempts) {
      const answer = await range.fire(range.target.auth, { path: LOGIN, message });
      judge(range, className, what, answer, [expected.fields]);
    }
    const after = await sendLogin(range, username, password);
    if (after.status !== status.OK)
      range.board.crashed(className, `the real password afterwards: ${after.fields}`);
  });
}

/** A string in protobuf's own encoding. */
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

function sendLogin(range: Range, username: string, password: string): Promise<Answer> {
  return range.fire(range.target.auth, { path: LOGIN, message: loginOf(username, password) });
}

/** A name that exists and one that does not: the same bytes after the same time. */
async function attackTiming(range: Range): Promise<void> {
  const className = 'login: known and unknown names';
  const timed = async (name: string): Promise<{ answer: Answer; ms: number }> => {
    const startedMs = performance.now();
    const answer = await sendLogin(range, name, 'not the password');
    return { answer, ms: performance.now() - startedMs };
  };
  await underWatch(range, className, async () => {
    const known: number[] = [];
    const unknown: number[] = [];
    for (let index = 0; index < TIMING_SAMPLES; index += 1) {
      const one = await timed('alice');
      const other = await timed(`nobody-${index}`);
      known.push(one.ms);
      unknown.push(other.ms);
      judge(range, className, 'a known name', one.answer, [other.answer.fields]);
      range.board.holds(className, other.answer.status === status.UNAUTHENTICATED, 'an unknown name');
    }
    const [knownMs, unknownMs] = [median(known), median(unknown)];
    const ratio = Math.max(knownMs, unknownMs) / Math.min(knownMs, unknownMs);
    range.board.holds(
      className,
      ratio <= TIMING_RATIO_MAX,
      `known ${knownMs.toFixed(1)} ms, unknown ${unknownMs.toFixed(1)} ms`,
    );
  });
}

// --- clients

/** Who is not the client learns nothing either. */
async function attackWithAssertions(range: Range): Promise<void> {
  const className = "a client's assertion";
  const { clientKey } = range;
  const nowSeconds = Math.floor(Date.now() / 1000);
  const good: Claims = {
    iss: 'payment',
    sub: 'payment',
    aud: range.system.issuer,
    iat: nowSeconds,
    exp: nowSeconds + 60,
  };
  const made = (
    changes: Claims = {},
    header: Claims = { alg: 'EdDSA' },
    key: KeyObject = clientKey,
  ): string =>
    sealed(encode(jsonText(header)), encode(jsonText({ ...good, jti: randomUUID(), ...changes })), key);
  const issue = (assertion: string, clientId = 'payment'): Promise<Answer> =>
    range.fire(range.target.auth, {
      path: ISSUE,
      message: IssueServiceTokenRequest.encode({
        clientId,
        audiences: [],
        scopes: [],
        credential: { $case: 'clientAssertion', value: assertion },
      }).finish(),
    });
  const stranger = generateKeyPairSync('ed25519').privateKey;
  const pem = createPublicKey(clientKey).export({ type: 'spki', format: 'pem' }).toString();
  const [, payload] = made().split('.');
  const hmacInput = `${encode(jsonText({ alg: 'HS256' }))}.${payload}`;
  await underWatch(range, className, async () => {
    const expected = await issue('x', 'nobody');
    range.board.holds(className, expected.status === status.UNAUTHENTICATED, `nobody: ${expected.fields}`);
    const once = made();
    const first = await issue(once);
    if (first.status !== status.OK)
      range.board.crashed(className, `a good assertion was refused: ${first.fields}`);
    const bad: (readonly [string, string])[] = [
      ['sent twice', once],
      ['by a stranger', made({}, { alg: 'EdDSA' }, stranger)],
      ['none', `${encode(jsonText({ alg: 'none' }))}.${payload}.`],
      [
        'HMAC with the public key',
        `${hmacInput}.${createHmac('sha256', pem).update(hmacInput).digest('base64url')}`,
      ],
      ['for somebody else', made({ aud: 'https://other.example' })],
      ['for several', made({ aud: [range.system.issuer, 'https://other.example'] })],
      ['without aud', made({ aud: undefined })],
      ['of another client', made({ iss: 'inventory', sub: 'inventory' })],
      ['of another issuer', made({ iss: 'inventory' })],
      ['without jti', made({ jti: undefined })],
      ['without exp', made({ exp: undefined })],
      ['expired', made({ iat: nowSeconds - 600, exp: nowSeconds - 300 })],
      ['of next week', made({ exp: nowSeconds + 7 * 86_400 })],
      ['not yet', made({ nbf: nowSeconds + 600 })],
      ['with crit', made({}, { alg: 'EdDSA', crit: ['x'], x: 1 })],
      ['an access token', range.alice.accessToken],
      ['of a megabyte', 'a'.repeat(1_000_000)],
      ['empty', ''],
    ];
    for (const [what, assertion] of bad)
      judge(range, className, what, await issue(assertion), [expected.fields]);
  });
}

// --- limits

/**
 * Guesses at one name come to an end, for a name that exists and one that does not after as many; nobody else is
 * kept out, and the one whose name it is not for long.
 */
async function attackLimits(range: Range): Promise<void> {
  const className = 'the limits of login';
  await underWatch(range, className, async () => {
    const known = await guessUntilLimited(range, range.system.users.olga.username);
    const unknown = await guessUntilLimited(range, 'nobody-of-note');
    const { board } = range;
    for (const { guesses, limited } of [known, unknown]) {
      board.holds(className, guesses <= GUESSES_MAX, `${guesses} guesses were answered`);
      board.holds(className, limited.length > 0, 'no guess was limited');
      for (const answer of limited) {
        board.holds(className, answer.status === status.RESOURCE_EXHAUSTED, answer.fields);
        const waitMs = retryAfterMs(answer);
        board.holds(className, waitMs > 0 && waitMs <= LOCKED_OUT_MS_MAX, `to come back after ${waitMs} ms`);
      }
    }
    const alike =
      known.guesses === unknown.guesses && sentenceOf(known.limited[0]) === sentenceOf(unknown.limited[0]);
    board.holds(
      className,
      alike,
      `${known.guesses} guesses at a known name, ${unknown.guesses} at an unknown one`,
    );
    const { username, password } = range.system.users.alice;
    const bystander = await sendLogin(range, username, password);
    if (bystander.status !== status.OK)
      board.crashed(className, `another user was kept out: ${bystander.fields}`);
    else board.refused(className);
    const guesser = await sendLogin(range, range.system.users.olga.username, 'not the password');
    judgeNotServed(range, className, 'one guess more', guesser);
  });
}

/** Several at a time, as a guesser would. */
async function guessUntilLimited(
  range: Range,
  name: string,
): Promise<{ guesses: number; limited: Answer[] }> {
  const limited: Answer[] = [];
  let guesses = 0;
  const all = Array.from({ length: GUESSES_MAX + 5 }, (_, index) => index);
  await forEach(
    all,
    async (index) => {
      if (limited.length >= 3) return;
      const answer = await sendLogin(range, name, `guess number ${index}`);
      if (answer.status === status.UNAUTHENTICATED) guesses += 1;
      else limited.push(answer);
    },
    4,
  );
  return { guesses, limited };
}

function sentenceOf(answer: Answer | undefined): string {
  return /grpc-message: (.*)/.exec(answer?.fields ?? '')?.[1] ?? '';
}

/** RetryInfo, out of the details that came with a refusal. */
function retryAfterMs(answer: Answer): number {
  const details = /grpc-status-details-bin: (.*)/.exec(answer.fields)?.[1] ?? '';
  const metadata = new Metadata();
  metadata.set('grpc-status-details-bin', Buffer.from(details, 'base64'));
  return errorOf({ code: answer.status, details: '', metadata }).retryAfterMs ?? 0;
}
