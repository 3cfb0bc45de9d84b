/** Tokens with bad claims under a valid signature: types, issuers, audiences, times, JSON tricks. */

import { randomUUID } from 'node:crypto';
import { type BadToken, entry, type TokenMaterial } from './bad-token.js';
import { type Claims, type Forge, jsonText } from './forge.js';

const USER_CLAIMS = [
  'iss',
  'aud',
  'sub',
  'client_id',
  'iat',
  'exp',
  'jti',
  'scope',
  'clients',
  'sid',
  'gen',
  'auth_time',
];
const WRONG_TYPES: readonly unknown[] = [null, true, false, {}, { a: 1 }, [[]], [null], [1], -1, 1.5, ''];

/** Values of {@link WRONG_TYPES} that are valid for a claim after all. */
const IS_ALLOWED: Readonly<Record<string, (value: unknown) => boolean>> = { scope: (value) => value === '' };

const CLAIMS_CLASS = 'claims missing or of another type';

export function claimTypes({ forge }: TokenMaterial): BadToken[] {
  const { claims } = forge;
  const changed = [
    ...changedIdentifiersAndTimes(claims),
    ...changedScopes(),
    ...changedRolesAndClients(),
    ...changedActors(claims),
    ...changedKinds(claims),
  ];
  return [
    ...missingClaims(forge),
    ...mistypedClaims(forge),
    ...changed.map((changes) =>
      entry(CLAIMS_CLASS, jsonText(changes).slice(0, 90), forge.withClaims(changes)),
    ),
    ...oddNumbers(forge),
  ];
}

function missingClaims(forge: Forge): BadToken[] {
  return USER_CLAIMS.map((name) =>
    entry(CLAIMS_CLASS, `no ${name}`, forge.withClaims({ [name]: undefined })),
  );
}

function mistypedClaims(forge: Forge): BadToken[] {
  return USER_CLAIMS.flatMap((name) =>
    WRONG_TYPES.filter((value) => !IS_ALLOWED[name]?.(value)).map((value) =>
      entry(CLAIMS_CLASS, `${name} ${JSON.stringify(value)}`, forge.withClaims({ [name]: value })),
    ),
  );
}

/** Numbers as JSON text, beyond what an integer claim may be. */
function oddNumbers(forge: Forge): BadToken[] {
  const texts = ['1e400', '-1e400', '-0', '1e-400', '9007199254740993', '1.0000001', '99999999999999999999'];
  return (
    ['iat', 'exp', 'gen', 'auth_time']
      .flatMap((name) =>
        texts.map((text) => entry(CLAIMS_CLASS, `${name} ${text}`, forge.withClaims({}, { [name]: text }))),
      )
      // Both are 0 in JavaScript, which is a valid generation.
      .filter(({ what }) => what !== 'gen -0' && what !== 'gen 1e-400')
  );
}

function changedIdentifiersAndTimes(claims: Claims): Claims[] {
  const uuid = randomUUID();
  return [
    ...['iss', 'sub', 'client_id', 'jti', 'sid'].flatMap((name) => [
      { [name]: [claims[name]] },
      { [name]: { value: claims[name] } },
      { [name]: 7 },
      { [name]: 'x'.repeat(256) },
      { [name]: '' },
    ]),
    ...['iat', 'exp', 'auth_time', 'gen'].flatMap((name) => [
      { [name]: String(claims[name]) },
      { [name]: [claims[name]] },
      { [name]: new Date(Number(claims[name]) * 1000).toISOString() },
    ]),
    ...['jti', 'sid'].flatMap((name) => [
      { [name]: uuid.toUpperCase() },
      { [name]: `{${uuid}}` },
      { [name]: `urn:uuid:${uuid}` },
      { [name]: uuid.replaceAll('-', '') },
      { [name]: `${uuid} ` },
      { [name]: `${uuid}\n` },
      { [name]: '00000000-0000-0000-0000-000000000000' },
    ]),
  ];
}

function changedScopes(): Claims[] {
  return [
    ...[['auth.self'], { 'auth.self': true }, 1, true, null].map((scope) => ({ scope })),
    ...[
      'auth.self  payment.read',
      ' auth.self',
      'auth.self ',
      'auth.self\tpayment.read',
      'auth.self\npayment.read',
    ].map((scope) => ({ scope })),
    ...['auth.self,payment.read"', 'auth.self\\x', 'auth.self\u00a0payment.read', 'a\0b'].map((scope) => ({
      scope,
    })),
    { scope: Array.from({ length: 65 }, (_, index) => `s${index}`).join(' ') },
  ];
}

function changedRolesAndClients(): Claims[] {
  return [
    ...[
      'admin',
      { admin: true },
      [1],
      [null],
      [['admin']],
      [''],
      ['x'.repeat(256)],
      Array(65).fill('r'),
      null,
    ].map((roles) => ({ roles })),
    ...[
      [],
      {},
      'direct',
      ['direct'],
      [['direct']],
      [['direct', '1']],
      [['direct', -1]],
      [['direct', 1.5]],
      null,
    ].map((clients) => ({ clients })),
    ...[[['direct', 1, 1]], [[1, 1]], [['', 1]], [['other', 1]], [{ id: 'direct', generation: 1 }]].map(
      (clients) => ({
        clients,
      }),
    ),
    { clients: Array.from({ length: 6 }, () => ['direct', 1]) },
    ...[[], [1], [''], 'pwd', [null], 7]
      .filter((amr) => JSON.stringify(amr) !== '[]')
      .map((amr) => ({ amr })),
  ];
}

function changedActors(claims: Claims): Claims[] {
  const uuid = randomUUID();
  return [
    ...['x', 1, null, [], {}, { sub: 1 }, { sub: '' }, { act: { sub: 'x' } }, { sub: 'x', act: 1 }].map(
      (act) => ({
        act,
        ancestors: [uuid],
      }),
    ),
    { act: { sub: 'payment' } },
    { act: nestedActors(5), ancestors: [uuid] },
    ...['x', 1, null, {}, ['x'], [1], Array(5).fill(uuid)].map((ancestors) => ({ ancestors })),
    ...['x', 1, null, [], {}, { iss: 'x' }].map((origin) => ({
      origin,
      act: { sub: 'payment' },
      ancestors: [uuid],
    })),
    { origin: { iss: 'https://x', sub: 'x', jti: 'x', iat: claims['iat'] } },
  ];
}

/** A user's token that looks like a service's, and vice versa. */
function changedKinds(claims: Claims): Claims[] {
  const sub = String(claims['sub']);
  const uuid = randomUUID();
  return [
    { sid: undefined, gen: undefined, auth_time: undefined, amr: undefined },
    {
      sid: undefined,
      gen: undefined,
      auth_time: undefined,
      sub: 'direct',
      act: { sub: 'x' },
      ancestors: [uuid],
    },
    { client_id: sub, clients: [[sub, 1]] },
    { sub: 'direct' },
    { sid: undefined },
    { sid: undefined, sub: 'direct' },
    { client_id: 'payment' },
  ];
}

function nestedActors(depth: number): object {
  return depth === 1 ? { sub: 'a' } : { sub: 'a', act: nestedActors(depth - 1) };
}

export function issuersAndAudiences({ forge }: TokenMaterial): BadToken[] {
  const issuer = String(forge.claims['iss']);
  const count = similarAudiences('auth', issuer).length;
  return [
    ...similarIssuers(issuer).map((iss) =>
      entry('iss nearly right', `iss ${JSON.stringify(iss)}`, forge.withClaims({ iss })),
    ),
    ...Array.from({ length: count }, (_, index) =>
      entry(
        'aud nearly right, or another service',
        `aud ${JSON.stringify(similarAudiences('THIS', issuer)[index])}`,
        (audience) => forge.withClaims({ aud: similarAudiences(audience, issuer)[index] }),
      ),
    ),
  ];
}

function similarIssuers(issuer: string): string[] {
  return [
    `${issuer}/`,
    `${issuer}//`,
    ` ${issuer}`,
    `${issuer} `,
    `${issuer}\0`,
    `${issuer}?`,
    `${issuer}#`,
    `${issuer}.`,
    issuer.toUpperCase(),
    issuer.replace('http', 'HTTP'),
    issuer.replace('http:', 'https:'),
    issuer.slice(0, -1),
    issuer.replace('127.0.0.1', 'localhost'),
    issuer.replace('127.0.0.1', '127.1'),
    `${issuer}0`,
    `x${issuer}`,
    issuer.replace('//', '//x@'),
    issuer.replace(/:\d+$/, ''),
    encodeURI(issuer).replaceAll(':', '%3A'),
    'null',
    `${issuer},${issuer}`,
    `${issuer}\u200b`,
    issuer.replace('1', '１'),
    'https://accounts.example.com',
  ];
}

function similarAudiences(audience: string, issuer: string): unknown[] {
  return [
    [],
    [''],
    '',
    audience,
    [`${audience} `],
    [` ${audience}`],
    [audience.toUpperCase()],
    [`${audience}\0`],
    ['*'],
    [`${audience}x`],
    [`x${audience}`],
    [audience.slice(1)],
    [audience.slice(0, -1)],
    [`${audience},x`],
    ['all'],
    [`${audience}.v1`],
    [`/${audience}`],
    [`${audience}/`],
    [`https://${audience}`],
    [`${audience}\u200b`],
    [null],
    [[audience]],
    [{ aud: audience }],
    { 0: audience },
    { [audience]: true },
    [audience, 1],
    [audience, ''],
    [['auth', 'inventory', 'payment'].filter((name) => name !== audience)].flat(),
    Array(65).fill(audience),
    [audience.replace('n', 'п').replace('a', 'а')],
    [`${audience} ${audience}`],
    ['__proto__'],
    [issuer],
    ['direct'],
  ];
}

export function times({ forge, nowSeconds }: TokenMaterial): BadToken[] {
  const className = 'times';
  const changes: Claims[] = [
    ...[
      0,
      -1,
      -nowSeconds,
      nowSeconds * 1000,
      nowSeconds + 3601 * 24,
      nowSeconds + 10 * 365 * 86_400,
      2 ** 31,
      2 ** 53,
    ].map((exp) => ({ exp })),
    { iat: nowSeconds, exp: nowSeconds + 3601 },
    { iat: nowSeconds, exp: nowSeconds + 7200 },
    { iat: nowSeconds - 3600, exp: nowSeconds + 60 },
    { iat: nowSeconds - 86_400 },
    { iat: 1 },
    { iat: 0 },
    // Far enough ahead that none becomes valid before it is sent, even on a busy machine.
    ...[900, 3600, 86_400].map((ahead) => ({ iat: nowSeconds + ahead, exp: nowSeconds + ahead + 300 })),
    ...[900, 3600, 86_400].map((ahead) => ({ nbf: nowSeconds + ahead })),
    ...['x', null, -1, 1.5, [], String(nowSeconds), nowSeconds * 1000, 0].map((nbf) => ({ nbf })),
    { iat: nowSeconds + 100, exp: nowSeconds + 50 },
    { iat: nowSeconds, exp: nowSeconds },
    { iat: nowSeconds * 1000, exp: nowSeconds * 1000 + 300_000 },
    { exp: nowSeconds + 300.5 },
  ];
  return changes.map((change) => entry(className, jsonText(change), forge.withClaims(change)));
}

const JSON_CLASS = 'JSON tricks';

export function jsonTricks({ forge }: TokenMaterial): BadToken[] {
  const text = jsonText(forge.claims);
  const texts = [...textsWithMember(text), ...malformedTexts(text), ...unprintableTexts(text)];
  return [
    ...repeatedClaims(forge, text).map((content) =>
      entry('members that come twice', content.slice(0, 60), forge.withPayload(content)),
    ),
    ...texts.map(([what, content]) => entry(JSON_CLASS, what.slice(0, 60), forge.withPayload(content))),
    ...invalidUtf8(forge, text),
    entry(JSON_CLASS, 'UTF-16', forge.withPayload(Buffer.from(text, 'utf16le'))),
  ];
}

type NamedText = readonly [what: string, content: string];

/** The claims with another member at the end. */
function withMember(text: string, member: string): string {
  return text.replace(/}$/, `,${member}}`);
}

function repeatedClaims(forge: Forge, text: string): string[] {
  return [...USER_CLAIMS, 'roles', 'amr'].flatMap((name) => {
    const member = (key: string, value: unknown): string => `${key}:${JSON.stringify(value)}`;
    const escaped = `"\\u00${name.charCodeAt(0).toString(16)}${name.slice(1)}"`;
    const value = forge.claims[name];
    return [
      text.replace('{', `{${member(JSON.stringify(name), value)},`),
      text.replace('{', `{${member(JSON.stringify(name), 'x')},`),
      text.replace('{', `{${member(JSON.stringify(name), null)},`),
      text.replace('{', `{${member(escaped, 'x')},`),
      text.replace(/}$/, `,${member(escaped, value)}}`),
    ];
  });
}

function textsWithMember(text: string): NamedText[] {
  const within = (member: string): string => withMember(text, member);
  const deep = (depth: number): string => `"x":${'['.repeat(depth)}${']'.repeat(depth)}`;
  return [
    ['a member twice inside a claim', within('"x":{"a":1,"a":2}')],
    ['a member twice inside act', within('"act":{"sub":"payment","sub":"x"},"ancestors":[]')],
    ['__proto__', within('"__proto__":{"roles":["admin"]}')],
    ['__proto__ escaped', within('"\\u005f_proto__":{"roles":["admin"]}')],
    ['__proto__ inside a claim', within('"x":{"__proto__":{}}')],
    ['the claims inside __proto__', `{"__proto__":${text}}`],
    ...[8, 9, 20, 100, 1000, 2500].map((depth) => [`depth ${depth}`, within(deep(depth))] as const),
    ['depth of objects', within(`"x":${'{"a":'.repeat(500)}1${'}'.repeat(500)}`)],
    ['a longer token than is parsed', within(`"x":"${'a'.repeat(8000)}"`)],
    ['a token of 40 KB', within(`"x":"${'a'.repeat(30_000)}"`)],
    ['NaN', within('"x":NaN')],
    ['Infinity', within('"x":Infinity')],
    ['hex', within('"x":0x10')],
    ['a leading zero', within('"x":010')],
    ['a tab inside a string', within('"x":"\t"')],
  ];
}

function malformedTexts(text: string): NamedText[] {
  return [
    ...['[]', 'null', '""', '1', 'true', '', ' ', '{', '}', '{}', '[{}]'].map(
      (content) => [content, content] as const,
    ),
    ['in a list', `[${text}]`],
    ['as a string', JSON.stringify(text)],
    ['two objects', text + text],
    ['something after it', `${text}x`],
    ['NUL after it', `${text}\0`],
    ['a comma too many', text.replace(/}$/, ',}')],
    ['a comment', text.replace('{', '{/**/')],
    ['single quotes', text.replaceAll('"', "'")],
    ['a byte order mark', `\uFEFF${text}`],
  ];
}

function unprintableTexts(text: string): NamedText[] {
  return [
    ...['\\u0000', '\\n', '\\u001b', '\\u007f', '\\u0085', '\\ufffd'].flatMap((written): NamedText[] => [
      [`${written} in the subject`, text.replace(/"sub":"/, `$&${written}`)],
      [`${written} in a client`, text.replaceAll('"direct"', `"direct${written}"`)],
      [`${written} in a role`, text.replace(/"roles":\[[^\]]*\]/, `"roles":["customer","a${written}"]`)],
    ]),
    ['a lone surrogate as subject', text.replace(/"sub":"[^"]*"/, '"sub":"\\ud800"')],
    ['a lone surrogate as client', text.replaceAll('"direct"', '"\\udfff"')],
    ['a lone surrogate as role', text.replace(/"roles":\[[^\]]*\]/, '"roles":["\\ud800"]')],
  ];
}

const INVALID_UTF8 = [
  [0xff],
  [0xc0, 0x80],
  [0xc3],
  [0xed, 0xa0, 0x80],
  [0xf5, 0x80, 0x80, 0x80],
  [0xe2, 0x82],
  [0x80],
];

function invalidUtf8(forge: Forge, text: string): BadToken[] {
  const [before = '', after = ''] = withMember(text, '"x":"|"').split('|');
  return INVALID_UTF8.map((sequence) => {
    const payload = Buffer.concat([Buffer.from(before), Buffer.from(sequence), Buffer.from(after)]);
    const what = `invalid UTF-8 ${Buffer.from(sequence).toString('hex')}`;
    return entry(JSON_CLASS, what, forge.withPayload(payload));
  });
}
