/** Attacks on authorization: other spellings of a method, similar scopes and roles, objects of other users. */

import { randomUUID } from 'node:crypto';
import { credentials, status } from '@grpc/grpc-js';
import { createServiceTokenSource, errorOf } from '@portcullis/guard/client';
import { RevokeSessionRequest } from '../../proto/gen/auth/v1/auth_service.js';
import {
  CommitReservationRequest,
  GetReservationRequest,
  InventoryServiceClient,
  ReleaseReservationRequest,
} from '../../proto/gen/inventory/v1/inventory_service.js';
import {
  CheckoutRequest,
  GetAccountRequest,
  GetPaymentRequest,
  ListEntriesRequest,
  PaymentServiceClient,
} from '../../proto/gen/payment/v1/payment_service.js';
import { ask } from '../../scripts/system/calls.js';
import type { Answer } from '../shared/wire.js';
import { expectNotServed, forEach, runClass } from './attempts.js';
import type { Environment, RequestChanges, Target } from './environment.js';
import { type Claims, claimsIn } from './forge.js';
import { CALLER, GUARDED_METHODS } from './schema.js';

const SKU = 'MUG-03';

export async function attackAccess(environment: Environment): Promise<void> {
  await attackRules(environment);
  await attackWithForeignObjects(environment);
}

/** What is decided without the handlers of the services. */
export async function attackRules(environment: Environment): Promise<void> {
  await attackWithPaths(environment);
  await attackWithMethods(environment);
  await attackWithNearRights(environment);
  await attackWithOtherKinds(environment);
  await attackAsDeputy(environment);
}

// --- requests in other forms

async function attackWithPaths(environment: Environment): Promise<void> {
  const className = 'paths nearly right';
  const good = `Bearer ${environment.alice.accessToken}`;
  const attempts = environment.targets.flatMap((target) =>
    pathsNear(target.path).flatMap((path) =>
      [[], [good], ['Bearer x']].map((authorization) => ({ target, path, authorization })),
    ),
  );
  await runClass(environment, className, () =>
    forEach(attempts, async ({ target, path, authorization }) => {
      const answer = await environment.send(target, { path, authorization });
      expectNotServed(
        environment,
        className,
        `${target.process.name} ${JSON.stringify(path.slice(0, 60))}`,
        answer,
      );
    }),
  );
}

/** Spellings that a router might normalize to the path, or take for a public method. */
function pathsNear(path: string): string[] {
  const all = [...respelledPaths(path), ...encodedPaths(path), ...extendedPaths(path), ...otherMethods(path)];
  return all.filter((candidate) => candidate !== path);
}

/** A path as its service and method. */
function partsOf(path: string): { service: string; method: string; bare: string } {
  const [, service = '', method = ''] = path.split('/');
  return { service, method, bare: `${service}/${method}` };
}

/** Other case, slashes and dots. */
function respelledPaths(path: string): string[] {
  const { service, method, bare } = partsOf(path);
  return [
    path.toLowerCase(),
    path.toUpperCase(),
    `/${service.toUpperCase()}/${method}`,
    `/${service}/${method.toLowerCase()}`,
    bare,
    `//${bare}`,
    `/${service}//${method}`,
    `${path}/`,
    `${path}//`,
    `/${service}\\${method}`,
    `\\${bare}`,
    `/./${bare}`,
    `/../${bare}`,
    `/x/../${bare}`,
    `/${service}/./${method}`,
    `/${service}/x/../${method}`,
    `${path}/.`,
    `${path}/..`,
    `${path}/../${method}`,
    `/${service}.${method}`,
    `/.${bare}`,
    `/${service}/.${method}`,
    `${path}.`,
  ];
}

/** Percent encoding. */
function encodedPaths(path: string): string[] {
  const { service, method, bare } = partsOf(path);
  const encoded = (text: string): string =>
    [...text].map((character) => `%${character.charCodeAt(0).toString(16)}`).join('');
  return [
    `/${encoded(service)}/${method}`,
    `/${service}/${encoded(method)}`,
    `/${service}%2f${method}`,
    `/${service}%2F${method}`,
    `%2f${bare}`,
    `/%2e/${bare}`,
    `/%2e%2e/${bare}`,
    `/${service}/%252e/${method}`,
    `${path}%00`,
    `${path}%20`,
    `${path}%0a`,
  ];
}

/** Something before or after the path. */
function extendedPaths(path: string): string[] {
  return [
    `${path}?`,
    `${path}?x=1`,
    `${path}#`,
    `${path}#x`,
    `${path};x=1`,
    `${path}&x`,
    `${path}\0`,
    `${path} `,
    ` ${path}`,
    `${path}\t`,
    `${path}\r\n`,
    `/x${path}`,
    `/api${path}`,
    `/grpc${path}`,
    `/grpc.health.v1.Health/Check/..${path}`,
    `/auth.v1.AuthService/Login/..${path}`,
    `/grpc.health.v1.Health/Check${path}`,
    `${path}/grpc.health.v1.Health/Check`,
    `http://localhost${path}`,
    `https://localhost${path}`,
    `localhost${path}`,
    `/localhost${path}`,
    '*',
    '/',
    '',
    '//',
  ];
}

/** Similar letters, and other services and methods. */
function otherMethods(path: string): string[] {
  const { service, method } = partsOf(path);
  return [
    path.replace('i', 'ı'),
    path.replace('S', 'ſ'),
    `${path}\u00ad`,
    `/${service}/${method}${method}`,
    `/${service}/`,
    `/${service}`,
    `/${method}`,
    `/${service}/__proto__`,
    '/__proto__/constructor',
    `/${service}/constructor`,
    `/${service}/toString`,
    `/x.${service}/${method}`,
    `/${service}x/${method}`,
    `/${service}/${method}x`,
    `/${service.replace('.v1.', '.v2.')}/${method}`,
    `/${service.replace('.v1', '')}/${method}`,
    `${path}${'/'.repeat(2000)}`,
    `/${service}/${'A'.repeat(4000)}`,
  ];
}

const HTTP_METHODS = [
  'GET',
  'PUT',
  'DELETE',
  'OPTIONS',
  'HEAD',
  'PATCH',
  'TRACE',
  'CONNECT',
  'post',
  'Post',
  'PROPFIND',
  '',
  'X Y',
];

const CONTENT_TYPES = [
  'application/grpc+proto',
  'application/grpc+json',
  'application/grpc-web',
  'application/grpc-web+proto',
  'application/grpc-web-text',
  'application/grpc;charset=utf-8',
  'application/grpcx',
  'APPLICATION/GRPC',
  'application/json',
  'application/x-protobuf',
  'application/connect+proto',
  'text/plain',
  '*/*',
  '',
  ' ',
  undefined,
];

/** Requests with another HTTP method, another content type, or both. */
const REQUEST_FORMS: readonly RequestChanges[] = [
  ...HTTP_METHODS.map((method) => ({ method })),
  ...CONTENT_TYPES.map((contentType) => ({ contentType })),
  ...['PUT', 'OPTIONS', 'GET'].flatMap((method) =>
    CONTENT_TYPES.map((contentType) => ({ method, contentType })),
  ),
];

async function attackWithMethods(environment: Environment): Promise<void> {
  const className = 'HTTP methods and content types';
  const credentialsTried = [[], ['Bearer x'], ['Bearer '], [`Basic ${environment.alice.accessToken}`]];
  await runClass(environment, className, async () => {
    const attempts = environment.targets.flatMap((target) =>
      REQUEST_FORMS.flatMap((form) =>
        credentialsTried.map((authorization) => ({ target, form, authorization })),
      ),
    );
    await forEach(attempts, async ({ target, form, authorization }) => {
      const answer = await environment.send(target, { ...form, authorization });
      expectNotServed(environment, className, `${target.process.name} ${JSON.stringify(form)}`, answer);
    });
    for (const target of environment.targets) await expectServedAlike(environment, className, target);
  });
}

/** With a valid token such a request may be served, but only like an ordinary one. */
async function expectServedAlike(environment: Environment, className: string, target: Target): Promise<void> {
  const authorization = [`Bearer ${environment.bob.accessToken}`];
  const usual = await environment.send(target, { authorization });
  for (const form of REQUEST_FORMS) {
    const answer = await environment.send(target, { ...form, authorization });
    const isSame = answer.status !== status.OK || answer.body.equals(usual.body);
    const what = `${target.process.name} ${JSON.stringify(form)}: served differently`;
    environment.board.holds(className, isSame, what);
  }
}

// --- scopes, roles, kinds of callers

const SCOPES = [...new Set(GUARDED_METHODS.flatMap(({ scopes }) => scopes))];
const ROLES = ['customer', 'operator', 'security', 'admin'];

/** Changes that make a similar scope or role. */
const NEAR_MISSES: readonly (readonly [what: string, change: (right: string) => string])[] = [
  ['the last letter missing', (right) => right.slice(0, -1)],
  ['the first letter missing', (right) => right.slice(1)],
  ['a letter more', (right) => `${right}s`],
  ['a letter before', (right) => `x${right}`],
  ['upper case', (right) => right.toUpperCase()],
  ['a capital', (right) => right.charAt(0).toUpperCase() + right.slice(1)],
  ['a dot after', (right) => `${right}.`],
  ['a dot before', (right) => `.${right}`],
  ['a slash for the dot', (right) => right.replace('.', '/')],
  ['a colon for the dot', (right) => right.replace('.', ':') + (right.includes('.') ? '' : ':')],
  [
    'the first word alone',
    (right) => (right.includes('.') ? (right.split('.')[0] ?? '') : `${right}.${right}`),
  ],
  ['an asterisk', (right) => `${right.split('.')[0]}.*`],
  ['a lone asterisk', () => '*'],
  ['negated', (right) => `!${right}`],
  ['with a comma', (right) => `${right},${right}`],
  ['a regular expression', (right) => `${right.replace('.', '..')}|.*`],
];

/** Further changes for roles, with characters that a scope cannot contain. */
const NEAR_ROLES: typeof NEAR_MISSES = [
  ...NEAR_MISSES,
  ['a space after', (right) => `${right} `],
  ['a space before', (right) => ` ${right}`],
  ['NUL after', (right) => `${right}\0`],
  ['a no-break space', (right) => `${right}\u00a0`],
  ['a zero-width space', (right) => `${right}\u200b`],
  ['a Cyrillic a', (right) => right.replace('a', 'а').replace('o', 'о')],
  ['full width', (right) => right.replace(/[a-z]/g, (c) => String.fromCharCode(c.charCodeAt(0) + 0xfee0))],
  ['a byte order mark', (right) => `\uFEFF${right}`],
  ['__proto__', () => '__proto__'],
  ['constructor', () => 'constructor'],
  ['two roles in one', (right) => `customer ${right}`],
];

async function attackWithNearRights(environment: Environment): Promise<void> {
  const { forge } = environment;
  const allScopes = SCOPES.join(' ');
  const scopeTokens = NEAR_MISSES.map(([what, change]) => ({
    what,
    token: forge.withClaims({
      scope: [...new Set(SCOPES.map(change))].filter((s) => !SCOPES.includes(s)).join(' '),
      roles: ROLES,
    }),
  }));
  const roleTokens = NEAR_ROLES.map(([what, change]) => ({
    what,
    // Some changes leave some roles as they are.
    token: forge.withClaims({
      scope: allScopes,
      roles: ROLES.map(change).filter((role) => !ROLES.includes(role)),
    }),
  }));
  await refuseAll(environment, 'scopes nearly right', scopeTokens, ({ scopes }) => scopes.length > 0);
  await refuseAll(environment, 'roles nearly right', roleTokens, ({ roles }) => roles.length > 0);
  // A method that requires several scopes refuses each alone.
  const singles = SCOPES.map((scope) => ({
    what: `${scope} alone`,
    token: forge.withClaims({ scope, roles: ROLES }),
  }));
  for (const { what, token } of singles) {
    const scope = what.replace(' alone', '');
    await refuseAll(environment, 'a scope too few', [{ what, token }], ({ scopes }) =>
      scopes.some((wanted) => wanted !== scope),
    );
  }
}

async function attackWithOtherKinds(environment: Environment): Promise<void> {
  const { forge } = environment;
  const scope = SCOPES.join(' ');
  const asService: Claims = {
    sub: 'payment',
    client_id: 'payment',
    clients: [['payment', 1]],
    sid: undefined,
    gen: undefined,
    auth_time: undefined,
    amr: undefined,
  };
  const serviceToken = forge.withClaims({ ...asService, scope, roles: ROLES });
  const userToken = forge.withClaims({ scope, roles: ROLES });
  const delegated = forge.withClaims({
    scope,
    roles: ROLES,
    client_id: 'payment',
    clients: [
      ['direct', 1],
      ['payment', 1],
    ],
    act: { sub: 'payment' },
    ancestors: [randomUUID()],
  });
  const className = 'a caller of the other kind';
  await refuseAll(
    environment,
    className,
    [{ what: 'a service as a user', token: serviceToken }],
    ({ caller }) => caller === CALLER.user,
  );
  const users = [
    { what: 'a user as a service', token: userToken },
    { what: 'a service that acts for a user, as a service', token: delegated },
  ];
  await refuseAll(environment, className, users, ({ caller }) => caller === CALLER.service);
}

/** Calls every method that requires what these tokens lack. */
async function refuseAll(
  environment: Environment,
  className: string,
  tokens: readonly { readonly what: string; readonly token: string }[],
  lacks: (method: Target['guarded'][number]) => boolean,
): Promise<void> {
  const attempts = environment.targets.flatMap((target) =>
    target.guarded.filter(lacks).flatMap(({ path }) => tokens.map((tried) => ({ target, path, ...tried }))),
  );
  await runClass(environment, className, () =>
    forEach(attempts, async ({ target, path, what, token }) => {
      const answer = await environment.send(target, { path, authorization: [`Bearer ${token}`] });
      const refused = answer.status === status.PERMISSION_DENIED || answer.status === status.UNAUTHENTICATED;
      environment.board.holds(
        className,
        refused,
        `${target.process.name} ${path}, ${what}: ${answer.fields}`,
      );
    }),
  );
}

// --- objects of other users

async function attackWithForeignObjects(environment: Environment): Promise<void> {
  const className = "another user's things";
  const calls = await callsOfAlicesObjects(environment);
  await runClass(environment, className, async () => {
    for (const call of calls) await callAsBob(environment, className, call);
  });
}

/** A call of a method that names an object by its id. */
interface ObjectCall {
  readonly target: Target;
  readonly method: string;
  readonly id: string;
  encode(id: string): Uint8Array;
}

async function callsOfAlicesObjects(environment: Environment): Promise<ObjectCall[]> {
  const { auth, inventory, payment } = environment.target;
  const { accountId, paymentId, reservationId } = await createAlicesObjects(environment);
  const sessionId = environment.alice.session?.sessionId ?? '';
  const page = { pageSize: 0, pageToken: '', filter: '' };
  const lines = [{ sku: SKU, quantity: 1n }];
  const call = (target: Target, method: string, id: string, encode: ObjectCall['encode']): ObjectCall => {
    return { target, method, id, encode };
  };
  return [
    call(payment, 'GetAccount', accountId, (id) => GetAccountRequest.encode({ accountId: id }).finish()),
    call(payment, 'ListEntries', accountId, (id) =>
      ListEntriesRequest.encode({ accountId: id, ...page }).finish(),
    ),
    call(payment, 'GetPayment', paymentId, (id) => GetPaymentRequest.encode({ paymentId: id }).finish()),
    call(payment, 'Checkout', accountId, (id) =>
      CheckoutRequest.encode({ accountId: id, lines, requestId: randomUUID() }).finish(),
    ),
    call(inventory, 'GetReservation', reservationId, (id) =>
      GetReservationRequest.encode({ reservationId: id }).finish(),
    ),
    call(inventory, 'CommitReservation', reservationId, (id) =>
      CommitReservationRequest.encode({ reservationId: id, requestId: randomUUID() }).finish(),
    ),
    call(inventory, 'ReleaseReservation', reservationId, (id) =>
      ReleaseReservationRequest.encode({ reservationId: id, requestId: randomUUID() }).finish(),
    ),
    call(auth, 'RevokeSession', sessionId, (id) => RevokeSessionRequest.encode({ sessionId: id }).finish()),
  ];
}

/** An object of alice and a missing one must get the same refusal, and other spellings of the id no success. */
async function callAsBob(
  environment: Environment,
  className: string,
  { target, method, id, encode }: ObjectCall,
): Promise<void> {
  const { board } = environment;
  const path = `${target.path.slice(0, target.path.lastIndexOf('/'))}/${method}`;
  const authorization = [`Bearer ${environment.bob.accessToken}`];
  const asBob = (wanted: string): Promise<Answer> =>
    environment.send(target, { path, authorization, message: encode(wanted) });
  const foreign = await asBob(id);
  const missing = await asBob(randomUUID());
  const isRefused = foreign.status === status.NOT_FOUND || foreign.status === status.PERMISSION_DENIED;
  board.holds(className, isRefused && foreign.body.length === 0, `${method}: ${foreign.fields}`);
  if (foreign.fields === missing.fields) board.refused(className);
  else board.differs(className, `${method}: ${foreign.fields} against ${missing.fields}`);
  for (const odd of [id.toUpperCase(), `${id} `, `${id}\0`, `{${id}}`, `' OR '1'='1`]) {
    const answer = await asBob(odd);
    const what = `${method} of ${JSON.stringify(odd)}: ${answer.fields}`;
    board.holds(className, answer.status !== status.OK, what);
  }
}

async function createAlicesObjects(
  environment: Environment,
): Promise<{ accountId: string; paymentId: string; reservationId: string }> {
  const { system, alice } = environment;
  const payment = new PaymentServiceClient(system.payment.address, credentials.createInsecure());
  const inventory = new InventoryServiceClient(system.inventory[0].address, credentials.createInsecure());
  const token = alice.accessToken;
  const lines = [{ sku: SKU, quantity: 1n }];
  try {
    const accountId = system.accounts?.alice ?? '';
    const bought = await ask(
      payment.checkout.bind(payment),
      { accountId, lines, requestId: randomUUID() },
      { token },
    );
    const { reservation } = await ask(
      inventory.reserveStock.bind(inventory),
      { lines, timeToLive: { seconds: 60n, nanos: 0 }, requestId: randomUUID() },
      { token },
    );
    return {
      accountId,
      paymentId: bought.payment?.paymentId ?? '',
      reservationId: reservation?.reservationId ?? '',
    };
  } finally {
    payment.close();
    inventory.close();
  }
}

// --- the confused deputy

async function attackAsDeputy(environment: Environment): Promise<void> {
  const className = 'a service that wants more than it may have';
  await runClass(environment, className, async () => {
    await requestTooMuch(environment, className);
    const exchange = await exchangerOf(environment);
    await exchangeTooMuch(environment, className, exchange);
    await expectNarrowed(environment, className, exchange);
    const delegated = await exchange(environment.alice.accessToken, 'inventory', ['inventory.read']);
    await attackWithDelegated(environment, className, delegated);
  });
}

/** Requests a service token of payment. */
function serviceToken(
  { system, clientKey }: Environment,
  wanted: { readonly audiences?: string[]; readonly scopes?: string[] },
): Promise<string> {
  const source = createServiceTokenSource({
    address: system.auth.address,
    credentials: credentials.createInsecure(),
    clientId: 'payment',
    clientKey,
    issuer: system.issuer,
    ...wanted,
  });
  return source.get();
}

async function requestTooMuch(environment: Environment, className: string): Promise<void> {
  for (const wanted of [
    { audiences: ['inventory'], scopes: ['inventory.read'] },
    { audiences: ['inventory'], scopes: ['inventory.reserve', 'inventory.settle'] },
    { audiences: ['payment'] },
    { audiences: ['auth', 'inventory', 'payment'] },
    { audiences: ['auth'], scopes: ['auth.revoke'] },
    { audiences: ['auth'], scopes: ['auth.sync', 'auth.users.write'] },
    { audiences: ['auth'], scopes: ['auth.introspect'] },
    { audiences: ['*'] },
  ]) {
    const outcome = await outcomeOf(serviceToken(environment, wanted));
    environment.board.holds(className, outcome !== 'OK', `a token for ${JSON.stringify(wanted)}: ${outcome}`);
  }
}

/** Exchanges a token as payment. @returns the access token */
type Exchange = (subjectToken: string, audience: string, scopes: readonly string[]) => Promise<string>;

async function exchangerOf(environment: Environment): Promise<Exchange> {
  const { auth } = environment;
  const token = await serviceToken(environment, { audiences: ['auth'] });
  return async (subjectToken, audience, scopes) => {
    const request = { subjectToken, audience, scopes: [...scopes] };
    return (await ask(auth.exchangeToken.bind(auth), request, { token })).accessToken;
  };
}

async function exchangeTooMuch(
  environment: Environment,
  className: string,
  exchange: Exchange,
): Promise<void> {
  const { system, auth, alice, forge } = environment;
  const { username, password } = system.users.bob;
  const login = { username, password, audiences: ['inventory'], scopes: [], deviceName: 'attack' };
  const notForPayment = await ask(auth.login.bind(auth), login);
  const ownToken = await serviceToken(environment, { audiences: ['auth'] });
  const refused = [
    [alice.accessToken, 'auth', ['auth.self']],
    [alice.accessToken, 'payment', ['payment.pay']],
    [alice.accessToken, 'inventory', ['inventory.manage']],
    [notForPayment.accessToken, 'inventory', ['inventory.read']],
    [ownToken, 'inventory', ['inventory.read']],
    [alice.refreshToken, 'inventory', ['inventory.read']],
    [forge.withClaims({ sub: randomUUID() }), 'inventory', ['inventory.read']],
    [forge.withClaims({ sid: randomUUID() }), 'inventory', ['inventory.read']],
    [forge.withClaims({ gen: 0 }), 'inventory', ['inventory.read']],
    [forge.withClaims({ clients: [['direct', 0]] }), 'inventory', ['inventory.read']],
    [forge.withHeader({ typ: 'JWT' }), 'inventory', ['inventory.read']],
    ['', 'inventory', ['inventory.read']],
  ] as const;
  for (const [subjectToken, audience, scopes] of refused) {
    const outcome = await outcomeOf(exchange(subjectToken, audience, scopes));
    environment.board.holds(className, outcome !== 'OK', `exchanged for ${audience} ${scopes}: ${outcome}`);
  }
}

/** The exchanged token may have scopes of the user's token, for one audience, and no others. */
async function expectNarrowed(
  environment: Environment,
  className: string,
  exchange: Exchange,
): Promise<void> {
  const { alice, forge, board } = environment;
  const userScopes = String(forge.claims['scope']).split(' ');
  for (const scopes of [['inventory.read', 'auth.self'], ['payment.pay'], []]) {
    const claims = await exchange(alice.accessToken, 'inventory', scopes).then(claimsIn, () => undefined);
    const granted = String(claims?.['scope'] ?? '')
      .split(' ')
      .filter(Boolean);
    const isNarrowed = granted.every(
      (scope) => userScopes.includes(scope) && (scopes.length === 0 || scopes.includes(scope)),
    );
    const isForOne = claims === undefined || JSON.stringify(claims['aud']) === '["inventory"]';
    board.holds(className, isNarrowed && isForOne, `exchanged for ${scopes}: ${granted}`);
  }
}

/** An exchanged token is valid at its one audience, with its scopes, and nowhere else. */
async function attackWithDelegated(
  environment: Environment,
  className: string,
  delegated: string,
): Promise<void> {
  for (const target of environment.targets) {
    for (const { path, scopes } of target.guarded) {
      if (target.audience === 'inventory' && scopes.every((scope) => scope === 'inventory.read')) continue;
      const answer = await environment.send(target, { path, authorization: [`Bearer ${delegated}`] });
      const refused = answer.status === status.PERMISSION_DENIED || answer.status === status.UNAUTHENTICATED;
      environment.board.holds(
        className,
        refused,
        `${path} with a token for reading the stock: ${answer.fields}`,
      );
    }
  }
}

async function outcomeOf(answer: Promise<unknown>): Promise<string> {
  try {
    await answer;
    return 'OK';
  } catch (error) {
    const { code, reason } = errorOf(error);
    return `${status[code]} ${reason}`.trim();
  }
}
