/** Attacks on what a good token may do: other spellings of a method, rights nearly right, other people's things. */

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
import { forEach, judgeNotServed, underWatch } from './attempts.js';
import type { Aim, Range, Target } from './environment.js';
import { type Claims, claimsIn } from './forge.js';
import { CALLER, GUARDED_METHODS } from './schema.js';
import type { Answer } from './wire.js';

const SKU = 'MUG-03';

/** Tries all of it. */
export async function attackAccess(range: Range): Promise<void> {
  await attackWithPaths(range);
  await attackWithMethods(range);
  await attackWithNearRights(range);
  await attackWithOtherKinds(range);
  await attackWithForeignObjects(range);
  await attackAsDeputy(range);
}

// --- the way a request is written

async function attackWithPaths(range: Range): Promise<void> {
  const className = 'paths nearly right';
  const good = `Bearer ${range.alice.accessToken}`;
  const attempts = range.targets.flatMap((target) =>
    pathsNear(target.path).flatMap((path) =>
      [[], [good], ['Bearer x']].map((authorization) => ({ target, path, authorization })),
    ),
  );
  await underWatch(range, className, () =>
    forEach(attempts, async ({ target, path, authorization }) => {
      const answer = await range.fire(target, { path, authorization });
      judgeNotServed(range, className, `${target.process.name} ${JSON.stringify(path.slice(0, 60))}`, answer);
    }),
  );
}

function pathsNear(path: string): string[] {
  const [, service = '', method = ''] = path.split('/');
  const bare = `${service}/${method}`;
  const encoded = (text: string): string =>
    [...text].map((character) => `%${character.charCodeAt(0).toString(16)}`).join('');
  return [
    ...[
      path.toLowerCase(),
      path.toUpperCase(),
      `/${service.toUpperCase()}/${method}`,
      `/${service}/${method.toLowerCase()}`,
    ],
    ...[
      bare,
      `//${bare}`,
      `/${service}//${method}`,
      `${path}/`,
      `${path}//`,
      `/${service}\\${method}`,
      `\\${bare}`,
    ],
    ...[
      `/./${bare}`,
      `/../${bare}`,
      `/x/../${bare}`,
      `/${service}/./${method}`,
      `/${service}/x/../${method}`,
      `${path}/.`,
    ],
    ...[
      `${path}/..`,
      `${path}/../${method}`,
      `/${service}.${method}`,
      `/.${bare}`,
      `/${service}/.${method}`,
      `${path}.`,
    ],
    ...[
      `/${encoded(service)}/${method}`,
      `/${service}/${encoded(method)}`,
      `/${service}%2f${method}`,
      `/${service}%2F${method}`,
    ],
    ...[
      `%2f${bare}`,
      `/%2e/${bare}`,
      `/%2e%2e/${bare}`,
      `/${service}/%252e/${method}`,
      `${path}%00`,
      `${path}%20`,
      `${path}%0a`,
    ],
    ...[
      `${path}?`,
      `${path}?x=1`,
      `${path}#`,
      `${path}#x`,
      `${path};x=1`,
      `${path}&x`,
      `${path}\0`,
      `${path} `,
      ` ${path}`,
    ],
    ...[
      `${path}\t`,
      `${path}\r\n`,
      `/x${path}`,
      `/api${path}`,
      `/grpc${path}`,
      `/grpc.health.v1.Health/Check/..${path}`,
    ],
    ...[
      `/auth.v1.AuthService/Login/..${path}`,
      `/grpc.health.v1.Health/Check${path}`,
      `${path}/grpc.health.v1.Health/Check`,
    ],
    ...[
      `http://localhost${path}`,
      `https://localhost${path}`,
      `localhost${path}`,
      `/localhost${path}`,
      '*',
      '/',
      '',
      '//',
    ],
    ...[
      path.replace('i', 'ı'),
      path.replace('S', 'ſ'),
      `${path}\u00ad`,
      `/${service}/${method}${method}`,
      `/${service}/`,
    ],
    ...[
      `/${service}`,
      `/${method}`,
      `/${service}/__proto__`,
      '/__proto__/constructor',
      `/${service}/constructor`,
    ],
    ...[
      `/${service}/toString`,
      `/x.${service}/${method}`,
      `/${service}x/${method}`,
      `/${service}/${method}x`,
    ],
    ...[
      `/${service.replace('.v1.', '.v2.')}/${method}`,
      `/${service.replace('.v1', '')}/${method}`,
      `${path}${'/'.repeat(2000)}`,
    ],
    ...[`/${service}/${'A'.repeat(4000)}`],
  ].filter((candidate) => candidate !== path);
}

async function attackWithMethods(range: Range): Promise<void> {
  const className = 'HTTP methods and content types';
  const methods = [
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
  const types = [
    ...[
      'application/grpc+proto',
      'application/grpc+json',
      'application/grpc-web',
      'application/grpc-web+proto',
    ],
    ...[
      'application/grpc-web-text',
      'application/grpc;charset=utf-8',
      'application/grpcx',
      'APPLICATION/GRPC',
    ],
    ...[
      'application/json',
      'application/x-protobuf',
      'application/connect+proto',
      'text/plain',
      '*/*',
      '',
      ' ',
    ],
    undefined,
  ];
  const forms: Aim[] = [
    ...methods.map((method) => ({ method })),
    ...types.map((contentType) => ({ contentType })),
    ...['PUT', 'OPTIONS', 'GET'].flatMap((method) => types.map((contentType) => ({ method, contentType }))),
  ];
  const credentialsTried = [[], ['Bearer x'], ['Bearer '], [`Basic ${range.alice.accessToken}`]];
  await underWatch(range, className, async () => {
    const attempts = range.targets.flatMap((target) =>
      forms.flatMap((form) => credentialsTried.map((authorization) => ({ target, form, authorization }))),
    );
    await forEach(attempts, async ({ target, form, authorization }) => {
      const answer = await range.fire(target, { ...form, authorization });
      judgeNotServed(range, className, `${target.process.name} ${JSON.stringify(form)}`, answer);
    });
    // With a good token such a request may be served, and then as if it were an ordinary one.
    for (const target of range.targets) {
      const authorization = [`Bearer ${range.bob.accessToken}`];
      const usual = await range.fire(target, { authorization });
      for (const form of forms) {
        const answer = await range.fire(target, { ...form, authorization });
        const same = answer.status !== status.OK || answer.body.equals(usual.body);
        range.board.holds(
          className,
          same,
          `${target.process.name} ${JSON.stringify(form)}: served otherwise`,
        );
      }
    }
  });
}

// --- rights

const SCOPES = [...new Set(GUARDED_METHODS.flatMap(({ scopes }) => scopes))];
const ROLES = ['customer', 'operator', 'security', 'admin'];

/** How a scope or a role can be nearly right. */
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

/** What a role may be, and a scope may not. */
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

async function attackWithNearRights(range: Range): Promise<void> {
  const { forge } = range;
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
    // Not every change changes every role.
    token: forge.withClaims({
      scope: allScopes,
      roles: ROLES.map(change).filter((role) => !ROLES.includes(role)),
    }),
  }));
  await refuseAll(range, 'scopes nearly right', scopeTokens, ({ scopes }) => scopes.length > 0);
  await refuseAll(range, 'roles nearly right', roleTokens, ({ roles }) => roles.length > 0);
  // Of several scopes that a method asks for, each alone.
  const singles = SCOPES.map((scope) => ({
    what: `${scope} alone`,
    token: forge.withClaims({ scope, roles: ROLES }),
  }));
  for (const { what, token } of singles) {
    const scope = what.replace(' alone', '');
    await refuseAll(range, 'a scope too few', [{ what, token }], ({ scopes }) =>
      scopes.some((wanted) => wanted !== scope),
    );
  }
}

async function attackWithOtherKinds(range: Range): Promise<void> {
  const { forge } = range;
  const scope = SCOPES.join(' ');
  const asService: Claims = {
    ...{ sub: 'payment', client_id: 'payment', clients: [['payment', 1]] },
    ...{ sid: undefined, gen: undefined, auth_time: undefined, amr: undefined },
  };
  const serviceToken = forge.withClaims({ ...asService, scope, roles: ROLES });
  const userToken = forge.withClaims({ scope, roles: ROLES });
  const delegated = forge.withClaims({
    ...{ scope, roles: ROLES, client_id: 'payment' },
    clients: [
      ['direct', 1],
      ['payment', 1],
    ],
    ...{ act: { sub: 'payment' }, ancestors: [randomUUID()] },
  });
  const className = 'a caller of the other kind';
  await refuseAll(
    range,
    className,
    [{ what: 'a service as a user', token: serviceToken }],
    ({ caller }) => caller === CALLER.user,
  );
  const users = [
    { what: 'a user as a service', token: userToken },
    { what: 'a service that acts for a user, as a service', token: delegated },
  ];
  await refuseAll(range, className, users, ({ caller }) => caller === CALLER.service);
}

/** Calls every method that asks for what these tokens lack. */
async function refuseAll(
  range: Range,
  className: string,
  tokens: readonly { readonly what: string; readonly token: string }[],
  lacks: (method: Target['guarded'][number]) => boolean,
): Promise<void> {
  const attempts = range.targets.flatMap((target) =>
    target.guarded.filter(lacks).flatMap(({ path }) => tokens.map((tried) => ({ target, path, ...tried }))),
  );
  await underWatch(range, className, () =>
    forEach(attempts, async ({ target, path, what, token }) => {
      const answer = await range.fire(target, { path, authorization: [`Bearer ${token}`] });
      const refused = answer.status === status.PERMISSION_DENIED || answer.status === status.UNAUTHENTICATED;
      range.board.holds(className, refused, `${target.process.name} ${path}, ${what}: ${answer.fields}`);
    }),
  );
}

// --- other people's things

async function attackWithForeignObjects(range: Range): Promise<void> {
  const className = "another user's things";
  const { auth, inventory, payment } = range.target;
  const { accountId, paymentId, reservationId } = await alicesThings(range);
  const sessionId = range.alice.session?.sessionId ?? '';
  const lines = [{ sku: SKU, quantity: 1n }];
  const requestId = (): string => randomUUID();
  const attempts: readonly (readonly [Target, string, string, (id: string) => Uint8Array])[] = [
    [payment, 'GetAccount', accountId, (id) => GetAccountRequest.encode({ accountId: id }).finish()],
    [
      payment,
      'ListEntries',
      accountId,
      (id) => ListEntriesRequest.encode({ accountId: id, pageSize: 0, pageToken: '', filter: '' }).finish(),
    ],
    [payment, 'GetPayment', paymentId, (id) => GetPaymentRequest.encode({ paymentId: id }).finish()],
    [
      payment,
      'Checkout',
      accountId,
      (id) => CheckoutRequest.encode({ accountId: id, lines, requestId: requestId() }).finish(),
    ],
    [
      inventory,
      'GetReservation',
      reservationId,
      (id) => GetReservationRequest.encode({ reservationId: id }).finish(),
    ],
    [
      inventory,
      'CommitReservation',
      reservationId,
      (id) => CommitReservationRequest.encode({ reservationId: id, requestId: requestId() }).finish(),
    ],
    [
      inventory,
      'ReleaseReservation',
      reservationId,
      (id) => ReleaseReservationRequest.encode({ reservationId: id, requestId: requestId() }).finish(),
    ],
    [auth, 'RevokeSession', sessionId, (id) => RevokeSessionRequest.encode({ sessionId: id }).finish()],
  ];
  await underWatch(range, className, async () => {
    for (const [target, method, id, encode] of attempts) {
      const path = `${target.path.slice(0, target.path.lastIndexOf('/'))}/${method}`;
      const asBob = (wanted: string): Promise<Answer> =>
        range.fire(target, {
          path,
          authorization: [`Bearer ${range.bob.accessToken}`],
          message: encode(wanted),
        });
      const foreign = await asBob(id);
      const missing = await asBob(randomUUID());
      const refused = foreign.status === status.NOT_FOUND || foreign.status === status.PERMISSION_DENIED;
      range.board.holds(className, refused && foreign.body.length === 0, `${method}: ${foreign.fields}`);
      if (foreign.fields === missing.fields) range.board.refused(className);
      else range.board.differs(className, `${method}: ${foreign.fields} against ${missing.fields}`);
      for (const odd of [id.toUpperCase(), `${id} `, `${id}\0`, `{${id}}`, `' OR '1'='1`]) {
        const answer = await asBob(odd);
        range.board.holds(
          className,
          answer.status !== status.OK,
          `${method} of ${JSON.stringify(odd)}: ${answer.fields}`,
        );
      }
    }
  });
}

async function alicesThings(
  range: Range,
): Promise<{ accountId: string; paymentId: string; reservationId: string }> {
  const { system, alice } = range;
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

async function attackAsDeputy(range: Range): Promise<void> {
  const className = 'a service that wants more than it may have';
  const { system, auth, alice } = range;
  const sourceOf = (wanted: { audiences?: string[]; scopes?: string[] }) =>
    createServiceTokenSource({
      address: system.auth.address,
      credentials: credentials.createInsecure(),
      clientId: 'payment',
      clientKey: range.clientKey,
      issuer: system.issuer,
      ...wanted,
    });
  await underWatch(range, className, async () => {
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
      const outcome = await outcomeOf(sourceOf(wanted).get());
      range.board.holds(className, outcome !== 'OK', `a token for ${JSON.stringify(wanted)}: ${outcome}`);
    }
    const token = await sourceOf({ audiences: ['auth'] }).get();
    const exchange = async (subjectToken: string, audience: string, scopes: string[]): Promise<string> =>
      (await ask(auth.exchangeToken.bind(auth), { subjectToken, audience, scopes }, { token })).accessToken;
    const { username, password } = system.users.bob;
    const notForPayment = await ask(auth.login.bind(auth), {
      ...{ username, password, audiences: ['inventory'], scopes: [], deviceName: 'attack' },
    });
    const refused = [
      [alice.accessToken, 'auth', ['auth.self']],
      [alice.accessToken, 'payment', ['payment.pay']],
      [alice.accessToken, 'inventory', ['inventory.manage']],
      [notForPayment.accessToken, 'inventory', ['inventory.read']],
      [token, 'inventory', ['inventory.read']],
      [alice.refreshToken, 'inventory', ['inventory.read']],
      [range.forge.withClaims({ sub: randomUUID() }), 'inventory', ['inventory.read']],
      [range.forge.withClaims({ sid: randomUUID() }), 'inventory', ['inventory.read']],
      [range.forge.withClaims({ gen: 0 }), 'inventory', ['inventory.read']],
      [range.forge.withClaims({ clients: [['direct', 0]] }), 'inventory', ['inventory.read']],
      [range.forge.withHeader({ typ: 'JWT' }), 'inventory', ['inventory.read']],
      ['', 'inventory', ['inventory.read']],
    ] as const;
    for (const [subjectToken, audience, scopes] of refused) {
      const outcome = await outcomeOf(exchange(subjectToken, audience, [...scopes]));
      range.board.holds(className, outcome !== 'OK', `exchanged for ${audience} ${scopes}: ${outcome}`);
    }
    // What the user's token has may be handed on for this one service; nothing may be added to it.
    for (const scopes of [['inventory.read', 'auth.self'], ['payment.pay'], []]) {
      const claims = await exchange(alice.accessToken, 'inventory', scopes).then(claimsIn, () => undefined);
      const given = String(claims?.['scope'] ?? '')
        .split(' ')
        .filter(Boolean);
      const mine = String(range.forge.claims['scope']).split(' ');
      const narrow = given.every(
        (scope) => mine.includes(scope) && (scopes.length === 0 || scopes.includes(scope)),
      );
      const forOne = claims === undefined || JSON.stringify(claims['aud']) === '["inventory"]';
      range.board.holds(className, narrow && forOne, `exchanged for ${scopes}: ${given}`);
    }
    await attackWithDelegated(
      range,
      className,
      await exchange(alice.accessToken, 'inventory', ['inventory.read']),
    );
  });
}

/** A token that was narrowed for one service is good there, for that, and nowhere else. */
async function attackWithDelegated(range: Range, className: string, delegated: string): Promise<void> {
  for (const target of range.targets) {
    for (const { path, scopes } of target.guarded) {
      if (target.audience === 'inventory' && scopes.every((scope) => scope === 'inventory.read')) continue;
      const answer = await range.fire(target, { path, authorization: [`Bearer ${delegated}`] });
      const refused = answer.status === status.PERMISSION_DENIED || answer.status === status.UNAUTHENTICATED;
      range.board.holds(className, refused, `${path} with a token for reading the stock: ${answer.fields}`);
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
