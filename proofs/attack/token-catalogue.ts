/** Tokens that are each wrong in one way: failures that token libraries have had. */

import {
  createHash,
  createHmac,
  createPublicKey,
  generateKeyPairSync,
  type KeyObject,
  randomBytes,
  randomUUID,
  sign,
} from 'node:crypto';
import { type Claims, encode, type Forge, jsonText, segmentsOf, signedToken } from './forge.js';
import { type StolenKey, type StolenKeys, signatureOf } from './stolen-keys.js';

export interface BadToken {
  readonly className: string;
  /** What is wrong with the token. */
  readonly what: string;
  /** The token; a function when it depends on the audience of the service that receives it. */
  readonly token: string | ((audience: string) => string);
}

export interface TokenMaterial {
  readonly forge: Forge;
  readonly keys: StolenKeys;
  /** A valid token. */
  readonly good: string;
  /** A valid token of another user. */
  readonly other: string;
  /** The refresh token of the same login. */
  readonly refreshToken: string;
  /** The private key with which a service authenticates at the issuer. */
  readonly clientKey: KeyObject;
  /** The address of a server that no process may connect to. */
  readonly listenerUrl: string;
  /** The issuer's published key set, as text. */
  readonly keySetText: string;
  readonly nowSeconds: number;
}

export function badTokens(material: TokenMaterial): BadToken[] {
  return [
    ...algorithms(material),
    ...publicKeyAsSecret(material),
    ...ownKeys(material),
    ...headers(material),
    ...keyIds(material),
    ...signatures(material),
    ...spellings(material),
    ...claimTypes(material),
    ...issuersAndAudiences(material),
    ...times(material),
    ...jsonTricks(material),
    ...otherKinds(material),
  ];
}

function entry(className: string, what: string, token: BadToken['token']): BadToken {
  return { className, what, token };
}

// --- alg

const NONES = ['none', 'None', 'NONE', 'nOnE', 'NonE', 'none ', ' none', 'none\0', 'nоne', ''];
const OTHER_ALGORITHMS = [
  'EDDSA',
  'eddsa',
  'EdDSA ',
  ' EdDSA',
  'Ed25519',
  'ed25519',
  'Ed448',
  'ES256',
  'ES256K',
  'ES384',
  'ES512',
  'RS256',
  'RS384',
  'RS512',
  'PS256',
  'PS384',
  'PS512',
  'HS256',
  'HS384',
  'HS512',
  'HS1',
  'RS1',
  'dir',
  'A256KW',
  'A256GCMKW',
  'ECDH-ES',
  'RSA1_5',
  'RSA-OAEP',
  'PBES2-HS256+A128KW',
  'ML-DSA-44',
  'EdDSA\0',
];

function algorithms({ forge, good, keys }: TokenMaterial): BadToken[] {
  const { payload, signature } = segmentsOf(good);
  const header = (alg: unknown): string => encode(jsonText({ ...forge.header, alg }));
  const none = [...NONES, null, 0, false, [], ['none'], {}].flatMap((alg) => {
    const named = `alg ${JSON.stringify(alg)}`;
    return [
      entry('alg none', `${named} without a signature`, `${header(alg)}.${payload}.`),
      entry('alg none', `${named}, two segments`, `${header(alg)}.${payload}`),
      entry('alg none', `${named} with the good signature`, `${header(alg)}.${payload}.${signature}`),
      entry('alg none', `${named}, signed with the issuer's key`, forge.withHeader({ alg })),
      entry('alg none', `${named}, one zero byte`, `${header(alg)}.${payload}.AA`),
    ];
  });
  const others = OTHER_ALGORITHMS.map((alg) =>
    entry('alg of another family', `alg ${alg}, signed with the issuer's key`, forge.withHeader({ alg })),
  );
  return [
    ...none,
    entry('alg none', 'no alg, signed', forge.withHeader({ alg: undefined })),
    entry('alg none', 'no alg, unsigned', `${header(undefined)}.${payload}.`),
    ...others,
    ...otherFamilies(forge, keys.token.kid),
  ];
}

/** Valid signatures of other algorithm families, by the attacker's keys, with the issuer's `kid`. */
function otherFamilies(forge: Forge, kid: string): BadToken[] {
  const rsa = generateKeyPairSync('rsa', { modulusLength: 2048 }).privateKey;
  const curve = (namedCurve: string): KeyObject => generateKeyPairSync('ec', { namedCurve }).privateKey;
  const payload = encode(jsonText(forge.claims));
  const made = (alg: string, signer: (signed: Buffer) => Buffer): BadToken => {
    const signed = `${encode(jsonText({ ...forge.header, alg, kid }))}.${payload}`;
    return entry(
      'alg of another family',
      `${alg} by the attacker's key`,
      `${signed}.${encode(signer(Buffer.from(signed)))}`,
    );
  };
  const ecdsa = (hash: string, key: KeyObject) => (signed: Buffer) =>
    sign(hash, signed, { key, dsaEncoding: 'ieee-p1363' });
  const { privateKey: ed448 } = generateKeyPairSync('ed448');
  const { privateKey: ed25519 } = generateKeyPairSync('ed25519');
  return [
    made('RS256', (signed) => sign('sha256', signed, rsa)),
    made('RS512', (signed) => sign('sha512', signed, rsa)),
    made('PS256', (signed) => sign('sha256', signed, { key: rsa, padding: 6, saltLength: 32 })),
    made('ES256', ecdsa('sha256', curve('prime256v1'))),
    made('ES256K', ecdsa('sha256', curve('secp256k1'))),
    made('ES384', ecdsa('sha384', curve('secp384r1'))),
    made('ES512', ecdsa('sha512', curve('secp521r1'))),
    made('EdDSA', (signed) => sign(null, signed, ed448)),
    made('EdDSA', (signed) => sign(null, signed, ed25519)),
  ];
}

const WEAK_WORDS = [
  '',
  ' ',
  '0',
  'a',
  'secret',
  'Secret',
  'password',
  'changeme',
  'changeit',
  'test',
  'key',
  'jwt',
  'default',
  'your-256-bit-secret',
  'your_jwt_secret',
  'supersecret',
  'admin',
  'portcullis',
  'auth',
  'undefined',
  'null',
  '[object Object]',
  '\0',
  '\0'.repeat(32),
  'AllYourBase',
  'qwerty',
  '123456',
  'shared-secret',
  'none',
];

function publicKeyAsSecret({ forge, keys, keySetText }: TokenMaterial): BadToken[] {
  const secrets: (readonly [string, string | Buffer])[] = [
    ...publicForms(keys.token),
    ['the key set as published', keySetText],
    ...WEAK_WORDS.map((word) => [`the word ${JSON.stringify(word)}`, word] as const),
  ];
  const payload = encode(jsonText(forge.claims));
  return secrets.flatMap(([form, secret]) =>
    (['HS256', 'HS384', 'HS512'] as const).map((alg) => {
      const signed = `${encode(jsonText({ ...forge.header, alg }))}.${payload}`;
      const digest = createHmac(`sha${alg.slice(2)}`, secret)
        .update(signed)
        .digest('base64url');
      return entry('HMAC with the public key or a weak word', `${alg} with ${form}`, `${signed}.${digest}`);
    }),
  );
}

/** The forms in which a verifier may hold the public key. */
function publicForms({ jwkText, kid }: StolenKey): (readonly [string, string | Buffer])[] {
  const jwk = JSON.parse(jwkText) as Record<string, string>;
  const key = createPublicKey({ key: jwk, format: 'jwk' });
  const pem = key.export({ type: 'spki', format: 'pem' }).toString();
  const der = key.export({ type: 'spki', format: 'der' });
  const raw = Buffer.from(jwk['x'] ?? '', 'base64url');
  return [
    ['PEM', pem],
    ['PEM without its last line break', pem.trimEnd()],
    ['PEM with CRLF', pem.replaceAll('\n', '\r\n')],
    ['PEM on one line', pem.replaceAll('\n', '')],
    ['DER', der],
    ['DER in base64', der.toString('base64')],
    ['DER in base64url', der.toString('base64url')],
    ['DER in hex', der.toString('hex')],
    ['the raw key', raw],
    ['the raw key in base64url', jwk['x'] ?? ''],
    ['the raw key in hex', raw.toString('hex')],
    ['JWK text', jwkText],
    ['JWK text with spaces', JSON.stringify(jwk, null, 2)],
    ['JWK text with kid', JSON.stringify({ ...jwk, kid, alg: 'EdDSA', use: 'sig' })],
    [
      'the thumbprint',
      createHash('sha256')
        .update(jsonText({ crv: jwk['crv'], kty: jwk['kty'], x: jwk['x'] }))
        .digest(),
    ],
    ['the kid', kid],
    ['no key at all', ''],
  ];
}

// --- header

function ownKeys({ forge, listenerUrl }: TokenMaterial): BadToken[] {
  const { privateKey, publicKey } = generateKeyPairSync('ed25519');
  const jwk = publicKey.export({ format: 'jwk' });
  const payload = encode(jsonText(forge.claims));
  const certificate = publicKey.export({ type: 'spki', format: 'der' }).toString('base64');
  const x5t = createHash('sha1').update(certificate).digest('base64url');
  const members: Claims[] = [
    { jwk },
    { jwk: { ...jwk, kid: forge.header['kid'] } },
    { jwk: jwk.x },
    { jwk: [jwk] },
    { jwks: { keys: [jwk] } },
    { x5c: [certificate] },
    { x5c: certificate },
    { x5t },
    { 'x5t#S256': x5t },
    ...['jku', 'x5u', 'jwks_uri', 'iss'].flatMap((name) =>
      [listenerUrl, `${listenerUrl}/.well-known/jwks.json`, listenerUrl.replace('http:', 'https:')].map(
        (url) => ({ [name]: url }),
      ),
    ),
    { jku: `${listenerUrl}#@127.0.0.1` },
    { x5u: 'file:///etc/passwd' },
  ];
  const className = 'a key of its own (jwk, x5c, jku, x5u)';
  return members.flatMap((changes) => {
    const what = jsonText(changes).slice(0, 60);
    const header = { ...forge.header, ...changes };
    return [
      entry(
        className,
        `${what}, signed by its key`,
        signedToken(encode(jsonText(header)), payload, privateKey),
      ),
      entry(
        className,
        `${what} without kid, signed by its key`,
        signedToken(encode(jsonText({ ...header, kid: undefined })), payload, privateKey),
      ),
      entry(className, `${what}, signed by the issuer's`, forge.withHeader(changes)),
    ];
  });
}

function headers({ forge, good }: TokenMaterial): BadToken[] {
  const { payload, signature } = segmentsOf(good);
  const extra: Claims[] = [
    { crit: [] },
    { crit: ['exp'] },
    { crit: ['b64'], b64: false },
    { crit: ['b64'], b64: true },
    { crit: 'b64', b64: false },
    { b64: false },
    { b64: true },
    { zip: 'DEF' },
    { cty: 'JWT' },
    { cty: 'at+jwt' },
    { enc: 'A256GCM' },
    { epk: {} },
    { p2c: 2 ** 31, p2s: 'AA' },
    { apu: 'x' },
    { nonce: 'x' },
    { url: 'http://127.0.0.1/' },
    { ppt: 'shaken' },
    { svt: [] },
    { exp: 1 },
    { iss: forge.claims['iss'] },
    { x: null },
    { '': '' },
    { constructor: 1 },
    { toString: 'x' },
  ];
  const types = [
    'JWT',
    'jwt',
    'AT+JWT',
    'at+jwt ',
    ' at+jwt',
    'at+JWT',
    'application/at+jwt',
    'at+jwt; charset=utf-8',
    '',
    'portcullis-revocations+jws',
    'JOSE',
    'id_token',
    'dpop+jwt',
    'logout+jwt',
    'at+jwt\0',
    'client-authentication+jwt',
    undefined,
    null,
    1,
    true,
    ['at+jwt'],
    { at: 'jwt' },
  ];
  const texts = [
    '',
    '{}',
    '[]',
    'null',
    '"EdDSA"',
    '1',
    'true',
    jsonText(forge.header).slice(0, -1),
    `${jsonText(forge.header)}}`,
    `${jsonText(forge.header)}x`,
    `[${jsonText(forge.header)}]`,
    `\uFEFF${jsonText(forge.header)}`,
    jsonText(forge.header).replaceAll('"', "'"),
    `${jsonText(forge.header).slice(0, -1)},}`,
    `/**/${jsonText(forge.header)}`,
  ];
  const text = jsonText(forge.header);
  const rewritten = [
    text.replaceAll(',', ', '),
    ` ${text}`,
    `${text}\n`,
    jsonText({ typ: 'at+jwt', kid: forge.header['kid'], alg: 'EdDSA' }),
    text.replace('EdDSA', '\\u0045dDSA'),
    text.replace('at+jwt', 'at\\u002bjwt'),
  ];
  const doubled = ['alg', 'kid', 'typ'].flatMap((name) => [
    text.replace('{', `{${JSON.stringify(name)}:${JSON.stringify(forge.header[name])},`),
    text.replace('{', `{${JSON.stringify(name)}:"x",`),
    text.replace(
      '}',
      `,"\\u00${name.charCodeAt(0).toString(16)}${name.slice(1)}":${JSON.stringify(forge.header[name])}}`,
    ),
  ]);
  return [
    ...extra.map((changes) => entry('extra header members', jsonText(changes), forge.withHeader(changes))),
    entry('extra header members', '__proto__', forge.withHeader({}, { ['__proto__']: '{"alg":"none"}' })),
    ...types.map((typ) =>
      entry('typ of another kind', `typ ${JSON.stringify(typ)}`, forge.withHeader({ typ })),
    ),
    ...texts.map((content) =>
      entry('header that is none', JSON.stringify(content).slice(0, 50), forge.withHeaderText(content)),
    ),
    entry(
      'header that is none',
      'invalid UTF-8',
      forge.withHeaderText(Buffer.from(`${text.slice(0, -2)}\xff"}`, 'latin1')),
    ),
    ...rewritten.map((content) =>
      entry(
        'header rewritten under the old signature',
        JSON.stringify(content).slice(0, 60),
        `${encode(content)}.${payload}.${signature}`,
      ),
    ),
    ...doubled.map((content) =>
      entry('members that come twice', `header ${content.slice(0, 60)}`, forge.withHeaderText(content)),
    ),
  ];
}

function keyIds({ forge, keys }: TokenMaterial): BadToken[] {
  const { kid } = keys.token;
  const shapes: unknown[] = [
    undefined,
    null,
    '',
    0,
    1,
    -1,
    true,
    false,
    [],
    [kid],
    {},
    { kid },
    1e21,
    '__proto__',
    'constructor',
    'toString',
    'hasOwnProperty',
    'prototype',
    'undefined',
    'null',
    'NaN',
    '../../../etc/passwd',
    '/dev/null',
    '..\\..\\win.ini',
    'file:///dev/null',
    `./${kid}`,
    `${kid}/`,
    `/${kid}`,
    "' OR '1'='1",
    "x' UNION SELECT 'AA'--",
    '"; DROP TABLE signing_keys; --',
    '$(id)',
    '`id`',
    '| id',
    '{{7*7}}',
    `${kid} `,
    ` ${kid}`,
    `${kid}\0`,
    `${kid}\n`,
    `${kid}=`,
    kid.toLowerCase(),
    kid.toUpperCase(),
    kid.slice(1),
    kid.slice(0, -1),
    `${kid}A`,
    `${kid},${kid}`,
    encode(kid),
    Buffer.from(kid, 'base64url').toString('hex'),
    'a'.repeat(10_000),
    'a'.repeat(64),
    '\u{1F511}',
    '\uFFFD',
    '\\',
    '%00',
    keys.broadcast.kid,
    ...Array.from({ length: 10 }, () => randomBytes(16).toString('base64url')),
  ];
  return shapes.map((shape) =>
    entry(
      'kid of every shape',
      `kid ${String(JSON.stringify(shape)).slice(0, 50)}`,
      forge.withHeader({ kid: shape }),
    ),
  );
}

// --- signature

/** The group order of Ed25519; adding it to s gives a signature that a lax verifier accepts. */
const ED25519_ORDER = 2n ** 252n + 27742317777372353535851937790883648493n;

function signatures({ forge, good, other, keys, clientKey }: TokenMaterial): BadToken[] {
  const { header, payload, signature } = segmentsOf(good);
  const bytes = Buffer.from(signature, 'base64url');
  const [first, second] = [bytes.subarray(0, 32), bytes.subarray(32)];
  const one = Buffer.concat([Buffer.from([1]), Buffer.alloc(31)]);
  const scalar = BigInt(`0x${Buffer.from(second).reverse().toString('hex')}`) + ED25519_ORDER;
  const shifted = Buffer.from(scalar.toString(16).padStart(64, '0'), 'hex').reverse();
  const lengths = [1, 16, 31, 32, 63, 65, 72, 96, 128, 256, 384, 512];
  const bodies: (readonly [string, Buffer])[] = [
    ['64 zero bytes (r = s = 0)', Buffer.alloc(64)],
    ['64 bytes 0xff', Buffer.alloc(64, 0xff)],
    ['r the neutral element, s = 0', Buffer.concat([one, Buffer.alloc(32)])],
    ['r = 0, the good s', Buffer.concat([Buffer.alloc(32), second])],
    ['the good r, s = 0', Buffer.concat([first, Buffer.alloc(32)])],
    ['r and s exchanged', Buffer.concat([second, first])],
    ['s shifted by the order of the group', Buffer.concat([first, shifted])],
    ['s = the order of the group', Buffer.concat([first, orderBytes()])],
    ['DER of r and s', Buffer.concat([Buffer.from([0x30, 68, 2, 32]), first, Buffer.from([2, 32]), second])],
    ['DER of zeros', Buffer.from([0x30, 6, 2, 1, 0, 2, 1, 0])],
    ['the good one twice', Buffer.concat([bytes, bytes])],
    ['the good one in hex', Buffer.from(bytes.toString('hex'))],
    ['bytes in reverse', Buffer.from(bytes).reverse()],
    ...lengths.map((length) => [`${length} zero bytes`, Buffer.alloc(length)] as const),
    ...lengths.map((length) => [`${length} random bytes`, randomBytes(length)] as const),
    ...[63, 62, 48, 1].map((length) => [`its first ${length} bytes`, bytes.subarray(0, length)] as const),
  ];
  const className = 'signature';
  const others = segmentsOf(other);
  const signed = `${header}.${payload}`;
  return [
    entry(className, 'missing, with the dot', `${signed}.`),
    entry(className, 'missing, without the dot', signed),
    ...bodies.map(([what, content]) => entry(className, what, `${signed}.${encode(content)}`)),
    entry(className, "another user's", `${signed}.${others.signature}`),
    entry(className, "another user's claims under it", `${header}.${others.payload}.${signature}`),
    entry(className, 'by the key of broadcasts', signedToken(header, payload, keys.broadcast.privateKey)),
    entry(className, "by a service's own key", signedToken(header, payload, clientKey)),
    entry(className, 'over the claims alone', `${signed}.${encode(signatureOf(payload, forge.key))}`),
    entry(className, 'over the header alone', `${signed}.${encode(signatureOf(header, forge.key))}`),
    entry(
      className,
      'over the decoded claims',
      `${signed}.${encode(sign(null, Buffer.from(payload, 'base64url'), forge.key))}`,
    ),
    entry(className, 'over nothing', `${signed}.${encode(sign(null, Buffer.alloc(0), forge.key))}`),
    entry(
      className,
      'over the digest',
      `${signed}.${encode(sign(null, createHash('sha512').update(signed).digest(), forge.key))}`,
    ),
  ];
}

function orderBytes(): Buffer {
  return Buffer.from(ED25519_ORDER.toString(16).padStart(64, '0'), 'hex').reverse();
}

// --- spelling

const BASE64URL = 'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_';

function spellings({ forge, good }: TokenMaterial): BadToken[] {
  const { header, payload, signature } = segmentsOf(good);
  const { key } = forge;
  const className = 'spelling';
  const rewritten = (what: string, change: (segment: string) => string): BadToken[] => {
    const changed = { header: change(header), payload: change(payload), signature: change(signature) };
    return [
      ...(changed.header === header
        ? []
        : [entry(className, `${what} in the header`, signedToken(changed.header, payload, key))]),
      ...(changed.payload === payload
        ? []
        : [entry(className, `${what} in the claims`, signedToken(header, changed.payload, key))]),
      ...(changed.signature === signature
        ? []
        : [entry(className, `${what} in the signature`, `${header}.${payload}.${changed.signature}`)]),
      entry(
        className,
        `${what} everywhere, old signature`,
        `${changed.header}.${changed.payload}.${changed.signature}`,
      ),
    ].filter(({ token }) => token !== good);
  };
  const inserts = [
    ' ',
    '\t',
    '=',
    '==',
    '%20',
    '%3D',
    '+',
    '/',
    '.',
    ',',
    ';',
    '\u00a0',
    '\u00ad',
    '\0',
    '\n',
    '\r\n',
    '~',
    '!',
  ];
  const plain = good.replaceAll('.', '');
  return [
    ...inserts.flatMap((piece) => [
      ...rewritten(`${JSON.stringify(piece)} at the end`, (segment) => segment + piece),
      ...rewritten(`${JSON.stringify(piece)} at the start`, (segment) => piece + segment),
      ...rewritten(
        `${JSON.stringify(piece)} in the middle`,
        (segment) => `${segment.slice(0, 8)}${piece}${segment.slice(8)}`,
      ),
    ]),
    ...rewritten('padding', (segment) => segment.padEnd(Math.ceil(segment.length / 4) * 4, '=')),
    ...rewritten('the alphabet of base64', (segment) => segment.replaceAll('-', '+').replaceAll('_', '/')),
    ...rewritten('hex', (segment) => Buffer.from(segment, 'base64url').toString('hex')),
    ...rewritten('percent encoding', (segment) =>
      segment.replace(/./, (c) => `%${c.charCodeAt(0).toString(16)}`),
    ),
    ...rewritten('base64url twice', (segment) => encode(segment)),
    ...rewritten('other case', (segment) => segment.replace(/[a-z]/, (c) => c.toUpperCase())),
    ...[1, 2, 3, 4, 5, 8, 15].flatMap((bits) =>
      rewritten(`spare bits ${bits}`, (segment) => withSpareBits(segment, bits)),
    ),
    entry(className, 'four segments, the last empty', `${good}.`),
    entry(className, 'four segments, the first empty', `.${good}`),
    entry(className, 'four segments', `${good}.${signature}`),
    entry(className, 'five segments', `${good}.${payload}.${signature}`),
    entry(className, 'a hundred segments', `${good}${'.'.repeat(100)}`),
    entry(className, 'two dots for one', good.replace('.', '..')),
    entry(className, 'no dots', plain),
    entry(className, 'one segment', header),
    entry(className, 'dots alone', '..'),
    entry(className, 'empty header', `.${payload}.${signature}`),
    entry(className, 'empty claims', signedToken(header, '', key)),
    entry(className, 'other separators', good.replaceAll('.', ':')),
    entry(className, 'wide dots', good.replaceAll('.', '\u00b7')),
    entry(className, 'in quotes', `"${good}"`),
    entry(className, 'in angle brackets', `<${good}>`),
    entry(className, 'twice', `${good}${good}`),
    entry(className, 'twice with a comma', `${good},${good}`),
    entry(className, 'twice with a space', `${good} ${good}`),
    entry(className, 'with a parameter', `${good}; charset=utf-8`),
    entry(className, 'with a fragment', `${good}#x`),
    entry(className, 'all in base64', encode(good)),
    entry(className, 'in lower case', good.toLowerCase()),
    entry(className, 'in upper case', good.toUpperCase()),
    entry(className, 'backwards', [...good].reverse().join('')),
  ];
}

/** The same bytes with other unused bits in the last character. */
function withSpareBits(segment: string, bits: number): string {
  const spare = [0, 0, 4, 2][segment.length % 4] ?? 0;
  const last = BASE64URL.indexOf(segment.slice(-1));
  if (spare === 0 || bits >= 1 << spare) return segment;
  return segment.slice(0, -1) + BASE64URL.charAt(last ^ bits);
}

// --- claims, with a valid signature

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

function claimTypes({ forge }: TokenMaterial): BadToken[] {
  const className = 'claims missing or of another type';
  const missing = USER_CLAIMS.map((name) =>
    entry(className, `no ${name}`, forge.withClaims({ [name]: undefined })),
  );
  const mistyped = USER_CLAIMS.flatMap((name) =>
    WRONG_TYPES.filter((value) => !IS_ALLOWED[name]?.(value)).map((value) =>
      entry(className, `${name} ${JSON.stringify(value)}`, forge.withClaims({ [name]: value })),
    ),
  );
  const { claims } = forge;
  const sub = String(claims['sub']);
  const uuid = randomUUID();
  const odd: Claims[] = [
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
    // A user's token that looks like a service's, and vice versa.
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
  return [
    ...missing,
    ...mistyped,
    ...odd.map((changes) => entry(className, jsonText(changes).slice(0, 90), forge.withClaims(changes))),
    ...['iat', 'exp', 'gen', 'auth_time']
      .flatMap((name) =>
        ['1e400', '-1e400', '-0', '1e-400', '9007199254740993', '1.0000001', '99999999999999999999'].map(
          (text) => entry(className, `${name} ${text}`, forge.withClaims({}, { [name]: text })),
        ),
      )
      .filter(({ what }) => what !== 'gen -0' && what !== 'gen 1e-400'),
  ];
}

function nestedActors(depth: number): object {
  return depth === 1 ? { sub: 'a' } : { sub: 'a', act: nestedActors(depth - 1) };
}

function issuersAndAudiences({ forge }: TokenMaterial): BadToken[] {
  const issuer = String(forge.claims['iss']);
  const issuers = [
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
  const near = (audience: string): unknown[] => [
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
  const count = near('auth').length;
  return [
    ...issuers.map((iss) =>
      entry('iss nearly right', `iss ${JSON.stringify(iss)}`, forge.withClaims({ iss })),
    ),
    ...Array.from({ length: count }, (_, index) =>
      entry(
        'aud nearly right, or another service',
        `aud ${JSON.stringify(near('THIS')[index])}`,
        (audience) => forge.withClaims({ aud: near(audience)[index] }),
      ),
    ),
  ];
}

function times({ forge, nowSeconds }: TokenMaterial): BadToken[] {
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
    ...[60, 600, 3600, 86_400].map((ahead) => ({ iat: nowSeconds + ahead, exp: nowSeconds + ahead + 300 })),
    ...[60, 600, 86_400].map((ahead) => ({ nbf: nowSeconds + ahead })),
    ...['x', null, -1, 1.5, [], String(nowSeconds), nowSeconds * 1000, 0].map((nbf) => ({ nbf })),
    { iat: nowSeconds + 100, exp: nowSeconds + 50 },
    { iat: nowSeconds, exp: nowSeconds },
    { iat: nowSeconds * 1000, exp: nowSeconds * 1000 + 300_000 },
    { exp: nowSeconds + 300.5 },
  ];
  return changes.map((change) => entry(className, jsonText(change), forge.withClaims(change)));
}

function jsonTricks({ forge }: TokenMaterial): BadToken[] {
  const text = jsonText(forge.claims);
  const doubled = [...USER_CLAIMS, 'roles', 'amr'].flatMap((name) => {
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
  const within = (extra: string): string => text.replace(/}$/, `,${extra}}`);
  const deep = (depth: number): string => `"x":${'['.repeat(depth)}${']'.repeat(depth)}`;
  const texts: (readonly [string, string])[] = [
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
    ['NaN', within('"x":NaN')],
    ['Infinity', within('"x":Infinity')],
    ['hex', within('"x":0x10')],
    ['a leading zero', within('"x":010')],
    ['a tab inside a string', within('"x":"\t"')],
    ['a byte order mark', `\uFEFF${text}`],
    ['a lone surrogate as subject', text.replace(/"sub":"[^"]*"/, '"sub":"\\ud800"')],
    ['a lone surrogate as client', text.replaceAll('"direct"', '"\\udfff"')],
    ['a lone surrogate as role', text.replace(/"roles":\[[^\]]*\]/, '"roles":["\\ud800"]')],
  ];
  const bytes = (invalid: readonly number[]): Buffer => {
    const [before = '', after = ''] = within('"x":"|"').split('|');
    return Buffer.concat([Buffer.from(before), Buffer.from(invalid), Buffer.from(after)]);
  };
  const invalid = [
    [0xff],
    [0xc0, 0x80],
    [0xc3],
    [0xed, 0xa0, 0x80],
    [0xf5, 0x80, 0x80, 0x80],
    [0xe2, 0x82],
    [0x80],
  ];
  return [
    ...doubled.map((content) =>
      entry('members that come twice', content.slice(0, 60), forge.withPayload(content)),
    ),
    ...texts.map(([what, content]) => entry('JSON tricks', what.slice(0, 60), forge.withPayload(content))),
    ...invalid.map((sequence) =>
      entry(
        'JSON tricks',
        `invalid UTF-8 ${Buffer.from(sequence).toString('hex')}`,
        forge.withPayload(bytes(sequence)),
      ),
    ),
    entry('JSON tricks', 'UTF-16', forge.withPayload(Buffer.from(text, 'utf16le'))),
  ];
}

// --- other signed objects, and objects that look like tokens

function otherKinds({ forge, good, keys, refreshToken, clientKey, nowSeconds }: TokenMaterial): BadToken[] {
  const { header, payload, signature } = segmentsOf(good);
  const broadcastHeader = { alg: 'EdDSA', kid: keys.broadcast.kid, typ: 'portcullis-revocations+jws' };
  const broadcast = encode(Buffer.from([0x0a, 0x10, ...randomBytes(16)]));
  const { key } = forge;
  const jwe = (alg: string, enc: string): string =>
    [
      encode(jsonText({ ...forge.header, alg, enc })),
      encode(randomBytes(40)),
      encode(randomBytes(12)),
      payload,
      encode(randomBytes(16)),
    ].join('.');
  const assertion = jsonText({
    iss: 'payment',
    sub: 'payment',
    aud: forge.claims['iss'],
    iat: nowSeconds,
    exp: nowSeconds + 60,
    jti: randomUUID(),
  });
  const idToken = { ...forge.claims, nonce: 'x', at_hash: 'x', email: 'alice@example.com' };
  const flattened = { protected: header, payload, signature };
  const other = 'another kind of token';
  const form = 'JWE, nested and JSON forms';
  return [
    entry(other, 'the refresh token', refreshToken),
    entry(other, 'the refresh token with dots', refreshToken.replace('_', '.').replace(/.{10}$/, '.$&')),
    entry(
      other,
      'a broadcast',
      signedToken(encode(jsonText(broadcastHeader)), broadcast, keys.broadcast.privateKey),
    ),
    entry(
      other,
      'a broadcast by the key of tokens',
      signedToken(encode(jsonText({ ...broadcastHeader, kid: keys.token.kid })), broadcast, key),
    ),
    entry(
      other,
      'claims signed as a broadcast',
      signedToken(encode(jsonText(broadcastHeader)), payload, keys.broadcast.privateKey),
    ),
    entry(
      other,
      'claims by the key of broadcasts',
      signedToken(
        encode(jsonText({ ...forge.header, kid: keys.broadcast.kid })),
        payload,
        keys.broadcast.privateKey,
      ),
    ),
    entry(
      other,
      "a service's assertion",
      signedToken(encode(jsonText({ alg: 'EdDSA' })), encode(assertion), clientKey),
    ),
    entry(other, "a service's assertion under our kid", signedToken(header, encode(assertion), clientKey)),
    entry(other, "a service's assertion by our key", signedToken(header, encode(assertion), key)),
    entry(
      other,
      'an id token',
      signedToken(encode(jsonText({ ...forge.header, typ: 'JWT' })), encode(jsonText(idToken)), key),
    ),
    entry(
      other,
      'an id token without typ',
      signedToken(encode(jsonText({ ...forge.header, typ: undefined })), encode(jsonText(idToken)), key),
    ),
    entry(
      other,
      'a logout token',
      signedToken(encode(jsonText({ ...forge.header, typ: 'logout+jwt' })), payload, key),
    ),
    entry(other, 'a UUID', randomUUID()),
    entry(other, 'a PASETO', `v4.public.${payload}${signature}`),
    entry(other, 'a macaroon', encode(randomBytes(80))),
    entry(form, 'JWE dir', jwe('dir', 'A256GCM')),
    entry(form, 'JWE RSA-OAEP', jwe('RSA-OAEP', 'A256GCM')),
    entry(form, 'JWE ECDH-ES', jwe('ECDH-ES', 'A128CBC-HS256')),
    entry(form, 'JWE PBES2', jwe('PBES2-HS256+A128KW', 'A128GCM')),
    entry(form, 'JWE of EdDSA', jwe('EdDSA', 'A256GCM')),
    entry(
      form,
      'nested, cty JWT',
      signedToken(encode(jsonText({ ...forge.header, cty: 'JWT' })), encode(good), key),
    ),
    entry(form, 'nested', signedToken(header, encode(good), key)),
    entry(form, 'nested as a string', signedToken(header, encode(JSON.stringify(good)), key)),
    entry(form, 'nested as a claim', signedToken(header, encode(jsonText({ jwt: good })), key)),
    entry(form, 'flattened JSON', JSON.stringify(flattened)),
    entry(form, 'general JSON', JSON.stringify({ payload, signatures: [{ protected: header, signature }] })),
    entry(form, 'flattened JSON in base64url', encode(JSON.stringify(flattened))),
    entry(form, 'unencoded payload', `${header}.${jsonText(forge.claims)}.${signature}`),
    entry(form, 'detached payload', `${header}..${signature}`),
    entry(form, 'SD-JWT', `${good}~${encode('["x","sub","y"]')}~`),
    entry(form, 'an SAML assertion', encode('<saml:Assertion/>')),
  ];
}
