/** Tokens with bad signatures or in other spellings, and other objects that are signed or look like tokens. */

import { createHash, randomBytes, randomUUID, sign } from 'node:crypto';
import { type BadToken, entry, type TokenMaterial } from './bad-token.js';
import { encode, jsonText, segmentsOf, signedToken } from './forge.js';
import { signatureOf } from './stolen-keys.js';

/** The group order of Ed25519; adding it to s gives a signature that a lax verifier accepts. */
const ED25519_ORDER = 2n ** 252n + 27742317777372353535851937790883648493n;

export function signatures({ forge, good, other, keys, clientKey }: TokenMaterial): BadToken[] {
  const { header, payload, signature } = segmentsOf(good);
  const className = 'signature';
  const others = segmentsOf(other);
  const signed = `${header}.${payload}`;
  return [
    entry(className, 'missing, with the dot', `${signed}.`),
    entry(className, 'missing, without the dot', signed),
    ...signatureBodies(signature).map(([what, content]) =>
      entry(className, what, `${signed}.${encode(content)}`),
    ),
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

/** Other bytes in the place of a signature. */
function signatureBodies(signature: string): (readonly [what: string, bytes: Buffer])[] {
  const bytes = Buffer.from(signature, 'base64url');
  const [first, second] = [bytes.subarray(0, 32), bytes.subarray(32)];
  const one = Buffer.concat([Buffer.from([1]), Buffer.alloc(31)]);
  const scalar = BigInt(`0x${Buffer.from(second).reverse().toString('hex')}`) + ED25519_ORDER;
  const shifted = Buffer.from(scalar.toString(16).padStart(64, '0'), 'hex').reverse();
  const lengths = [1, 16, 31, 32, 63, 65, 72, 96, 128, 256, 384, 512];
  return [
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
}

function orderBytes(): Buffer {
  return Buffer.from(ED25519_ORDER.toString(16).padStart(64, '0'), 'hex').reverse();
}

// --- spelling

const BASE64URL = 'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_';

const SPELLING_CLASS = 'spelling';

/** Changes one segment of a token, or all of them. */
type Rewriter = (what: string, change: (segment: string) => string) => BadToken[];

export function spellings(material: TokenMaterial): BadToken[] {
  return [...rewrittenSegments(rewriterOf(material)), ...otherSegments(material)];
}

function rewriterOf({ forge: { key }, good }: TokenMaterial): Rewriter {
  const { header, payload, signature } = segmentsOf(good);
  return (what, change) => {
    const changed = { header: change(header), payload: change(payload), signature: change(signature) };
    return [
      ...(changed.header === header
        ? []
        : [entry(SPELLING_CLASS, `${what} in the header`, signedToken(changed.header, payload, key))]),
      ...(changed.payload === payload
        ? []
        : [entry(SPELLING_CLASS, `${what} in the claims`, signedToken(header, changed.payload, key))]),
      ...(changed.signature === signature
        ? []
        : [entry(SPELLING_CLASS, `${what} in the signature`, `${header}.${payload}.${changed.signature}`)]),
      entry(
        SPELLING_CLASS,
        `${what} everywhere, old signature`,
        `${changed.header}.${changed.payload}.${changed.signature}`,
      ),
    ].filter(({ token }) => token !== good);
  };
}

const INSERTS = [
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

function rewrittenSegments(rewritten: Rewriter): BadToken[] {
  return [
    ...INSERTS.flatMap((piece) => [
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
  ];
}

/** Other numbers of segments, separators and surroundings. */
function otherSegments({ forge: { key }, good }: TokenMaterial): BadToken[] {
  const { header, payload, signature } = segmentsOf(good);
  const made = (what: string, token: string): BadToken => entry(SPELLING_CLASS, what, token);
  return [
    made('four segments, the last empty', `${good}.`),
    made('four segments, the first empty', `.${good}`),
    made('four segments', `${good}.${signature}`),
    made('five segments', `${good}.${payload}.${signature}`),
    made('a hundred segments', `${good}${'.'.repeat(100)}`),
    made('two dots for one', good.replace('.', '..')),
    made('no dots', good.replaceAll('.', '')),
    made('one segment', header),
    made('dots alone', '..'),
    made('empty header', `.${payload}.${signature}`),
    made('empty claims', signedToken(header, '', key)),
    made('other separators', good.replaceAll('.', ':')),
    made('wide dots', good.replaceAll('.', '\u00b7')),
    made('in quotes', `"${good}"`),
    made('in angle brackets', `<${good}>`),
    made('twice', `${good}${good}`),
    made('twice with a comma', `${good},${good}`),
    made('twice with a space', `${good} ${good}`),
    made('with a parameter', `${good}; charset=utf-8`),
    made('with a fragment', `${good}#x`),
    made('all in base64', encode(good)),
    made('in lower case', good.toLowerCase()),
    made('in upper case', good.toUpperCase()),
    made('backwards', [...good].reverse().join('')),
  ];
}

/** The same bytes with other unused bits in the last character. */
function withSpareBits(segment: string, bits: number): string {
  const spare = [0, 0, 4, 2][segment.length % 4] ?? 0;
  const last = BASE64URL.indexOf(segment.slice(-1));
  if (spare === 0 || bits >= 1 << spare) return segment;
  return segment.slice(0, -1) + BASE64URL.charAt(last ^ bits);
}

// --- other signed objects, and objects that look like tokens

const OTHER_CLASS = 'another kind of token';
const FORM_CLASS = 'JWE, nested and JSON forms';

export function otherKinds(material: TokenMaterial): BadToken[] {
  return [...lookalikes(material), ...broadcasts(material), ...otherJwts(material), ...otherForms(material)];
}

/** Tokens that are no JWT. */
function lookalikes({ good, refreshToken }: TokenMaterial): BadToken[] {
  const { payload, signature } = segmentsOf(good);
  return [
    entry(OTHER_CLASS, 'the refresh token', refreshToken),
    entry(
      OTHER_CLASS,
      'the refresh token with dots',
      refreshToken.replace('_', '.').replace(/.{10}$/, '.$&'),
    ),
    entry(OTHER_CLASS, 'a UUID', randomUUID()),
    entry(OTHER_CLASS, 'a PASETO', `v4.public.${payload}${signature}`),
    entry(OTHER_CLASS, 'a macaroon', encode(randomBytes(80))),
  ];
}

/** Broadcasts as tokens, and tokens with the key of broadcasts. */
function broadcasts({ forge, good, keys }: TokenMaterial): BadToken[] {
  const { payload } = segmentsOf(good);
  const broadcastHeader = { alg: 'EdDSA', kid: keys.broadcast.kid, typ: 'portcullis-revocations+jws' };
  const broadcast = encode(Buffer.from([0x0a, 0x10, ...randomBytes(16)]));
  return [
    entry(
      OTHER_CLASS,
      'a broadcast',
      signedToken(encode(jsonText(broadcastHeader)), broadcast, keys.broadcast.privateKey),
    ),
    entry(
      OTHER_CLASS,
      'a broadcast by the key of tokens',
      signedToken(encode(jsonText({ ...broadcastHeader, kid: keys.token.kid })), broadcast, forge.key),
    ),
    entry(
      OTHER_CLASS,
      'claims signed as a broadcast',
      signedToken(encode(jsonText(broadcastHeader)), payload, keys.broadcast.privateKey),
    ),
    entry(
      OTHER_CLASS,
      'claims by the key of broadcasts',
      signedToken(
        encode(jsonText({ ...forge.header, kid: keys.broadcast.kid })),
        payload,
        keys.broadcast.privateKey,
      ),
    ),
  ];
}

/** JWTs that are made for another purpose. */
function otherJwts({ forge, good, clientKey, nowSeconds }: TokenMaterial): BadToken[] {
  const { header, payload } = segmentsOf(good);
  const { key } = forge;
  const assertion = jsonText({
    iss: 'payment',
    sub: 'payment',
    aud: forge.claims['iss'],
    iat: nowSeconds,
    exp: nowSeconds + 60,
    jti: randomUUID(),
  });
  const idToken = { ...forge.claims, nonce: 'x', at_hash: 'x', email: 'alice@example.com' };
  return [
    entry(
      OTHER_CLASS,
      "a service's assertion",
      signedToken(encode(jsonText({ alg: 'EdDSA' })), encode(assertion), clientKey),
    ),
    entry(
      OTHER_CLASS,
      "a service's assertion under our kid",
      signedToken(header, encode(assertion), clientKey),
    ),
    entry(OTHER_CLASS, "a service's assertion by our key", signedToken(header, encode(assertion), key)),
    entry(
      OTHER_CLASS,
      'an id token',
      signedToken(encode(jsonText({ ...forge.header, typ: 'JWT' })), encode(jsonText(idToken)), key),
    ),
    entry(
      OTHER_CLASS,
      'an id token without typ',
      signedToken(encode(jsonText({ ...forge.header, typ: undefined })), encode(jsonText(idToken)), key),
    ),
    entry(
      OTHER_CLASS,
      'a logout token',
      signedToken(encode(jsonText({ ...forge.header, typ: 'logout+jwt' })), payload, key),
    ),
  ];
}

/** The same claims in other serializations of JOSE and its relatives. */
function otherForms({ forge, good }: TokenMaterial): BadToken[] {
  const { header, payload, signature } = segmentsOf(good);
  const { key } = forge;
  const jwe = (alg: string, enc: string): string =>
    [
      encode(jsonText({ ...forge.header, alg, enc })),
      encode(randomBytes(40)),
      encode(randomBytes(12)),
      payload,
      encode(randomBytes(16)),
    ].join('.');
  const flattened = { protected: header, payload, signature };
  const entryOf = (what: string, token: string): BadToken => entry(FORM_CLASS, what, token);
  return [
    entryOf('JWE dir', jwe('dir', 'A256GCM')),
    entryOf('JWE RSA-OAEP', jwe('RSA-OAEP', 'A256GCM')),
    entryOf('JWE ECDH-ES', jwe('ECDH-ES', 'A128CBC-HS256')),
    entryOf('JWE PBES2', jwe('PBES2-HS256+A128KW', 'A128GCM')),
    entryOf('JWE of EdDSA', jwe('EdDSA', 'A256GCM')),
    entryOf(
      'nested, cty JWT',
      signedToken(encode(jsonText({ ...forge.header, cty: 'JWT' })), encode(good), key),
    ),
    entryOf('nested', signedToken(header, encode(good), key)),
    entryOf('nested as a string', signedToken(header, encode(JSON.stringify(good)), key)),
    entryOf('nested as a claim', signedToken(header, encode(jsonText({ jwt: good })), key)),
    entryOf('flattened JSON', JSON.stringify(flattened)),
    entryOf('general JSON', JSON.stringify({ payload, signatures: [{ protected: header, signature }] })),
    entryOf('flattened JSON in base64url', encode(JSON.stringify(flattened))),
    entryOf('unencoded payload', `${header}.${jsonText(forge.claims)}.${signature}`),
    entryOf('detached payload', `${header}..${signature}`),
    entryOf('SD-JWT', `${good}~${encode('["x","sub","y"]')}~`),
    entryOf('an SAML assertion', encode('<saml:Assertion/>')),
  ];
}
