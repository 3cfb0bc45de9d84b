/** Tokens with bad headers: algorithms, embedded keys, other members, key ids. */

import {
  createHash,
  createHmac,
  createPublicKey,
  generateKeyPairSync,
  type KeyObject,
  randomBytes,
  sign,
} from 'node:crypto';
import { type BadToken, entry, type TokenMaterial } from './bad-token.js';
import { type Claims, encode, type Forge, jsonText, segmentsOf, signedToken } from './forge.js';
import type { StolenKey } from './stolen-keys.js';

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

export function algorithms({ forge, good, keys }: TokenMaterial): BadToken[] {
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

export function publicKeyAsSecret({ forge, keys, keySetText }: TokenMaterial): BadToken[] {
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

export function ownKeys({ forge, listenerUrl }: TokenMaterial): BadToken[] {
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

export function headers(material: TokenMaterial): BadToken[] {
  return [
    ...extraMembers(material),
    ...otherTypes(material),
    ...malformedHeaders(material),
    ...rewrittenHeaders(material),
    ...repeatedMembers(material),
  ];
}

function extraMembers({ forge }: TokenMaterial): BadToken[] {
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
  return [
    ...extra.map((changes) => entry('extra header members', jsonText(changes), forge.withHeader(changes))),
    entry('extra header members', '__proto__', forge.withHeader({}, { ['__proto__']: '{"alg":"none"}' })),
  ];
}

const OTHER_TYPES: readonly unknown[] = [
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

function otherTypes({ forge }: TokenMaterial): BadToken[] {
  return OTHER_TYPES.map((typ) =>
    entry('typ of another kind', `typ ${JSON.stringify(typ)}`, forge.withHeader({ typ })),
  );
}

function malformedHeaders({ forge }: TokenMaterial): BadToken[] {
  const text = jsonText(forge.header);
  const texts = [
    '',
    '{}',
    '[]',
    'null',
    '"EdDSA"',
    '1',
    'true',
    text.slice(0, -1),
    `${text}}`,
    `${text}x`,
    `[${text}]`,
    `\uFEFF${text}`,
    text.replaceAll('"', "'"),
    `${text.slice(0, -1)},}`,
    `/**/${text}`,
  ];
  const className = 'header that is none';
  return [
    ...texts.map((content) =>
      entry(className, JSON.stringify(content).slice(0, 50), forge.withHeaderText(content)),
    ),
    entry(
      className,
      'invalid UTF-8',
      forge.withHeaderText(Buffer.from(`${text.slice(0, -2)}\xff"}`, 'latin1')),
    ),
  ];
}

function rewrittenHeaders({ forge, good }: TokenMaterial): BadToken[] {
  const { payload, signature } = segmentsOf(good);
  const text = jsonText(forge.header);
  const rewritten = [
    text.replaceAll(',', ', '),
    ` ${text}`,
    `${text}\n`,
    jsonText({ typ: 'at+jwt', kid: forge.header['kid'], alg: 'EdDSA' }),
    text.replace('EdDSA', '\\u0045dDSA'),
    text.replace('at+jwt', 'at\\u002bjwt'),
  ];
  return rewritten.map((content) =>
    entry(
      'header rewritten under the old signature',
      JSON.stringify(content).slice(0, 60),
      `${encode(content)}.${payload}.${signature}`,
    ),
  );
}

function repeatedMembers({ forge }: TokenMaterial): BadToken[] {
  const text = jsonText(forge.header);
  const repeated = ['alg', 'kid', 'typ'].flatMap((name) => [
    text.replace('{', `{${JSON.stringify(name)}:${JSON.stringify(forge.header[name])},`),
    text.replace('{', `{${JSON.stringify(name)}:"x",`),
    text.replace(
      '}',
      `,"\\u00${name.charCodeAt(0).toString(16)}${name.slice(1)}":${JSON.stringify(forge.header[name])}}`,
    ),
  ]);
  return repeated.map((content) =>
    entry('members that come twice', `header ${content.slice(0, 60)}`, forge.withHeaderText(content)),
  );
}

export function keyIds({ forge, keys }: TokenMaterial): BadToken[] {
  const kids = [...similarKeyIds(keys.token.kid), ...HOSTILE_KEY_IDS, keys.broadcast.kid, ...randomKeyIds()];
  return kids.map((kid) =>
    entry('kid of every shape', `kid ${String(JSON.stringify(kid)).slice(0, 50)}`, forge.withHeader({ kid })),
  );
}

function randomKeyIds(): string[] {
  return Array.from({ length: 10 }, () => randomBytes(16).toString('base64url'));
}

function similarKeyIds(kid: string): unknown[] {
  return [
    [kid],
    { kid },
    `./${kid}`,
    `${kid}/`,
    `/${kid}`,
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
  ];
}

const HOSTILE_KEY_IDS: readonly unknown[] = [
  undefined,
  null,
  '',
  0,
  1,
  -1,
  true,
  false,
  [],
  {},
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
  "' OR '1'='1",
  "x' UNION SELECT 'AA'--",
  '"; DROP TABLE signing_keys; --',
  '$(id)',
  '`id`',
  '| id',
  '{{7*7}}',
  'a'.repeat(10_000),
  'a'.repeat(64),
  '\u{1F511}',
  '\uFFFD',
  '\\',
  '%00',
];
