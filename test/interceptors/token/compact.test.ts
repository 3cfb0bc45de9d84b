/** A token has exactly one encoding, and a minimal header. */

import { randomUUID } from 'node:crypto';
import { expect } from 'chai';
import fc from 'fast-check';
import { TOKEN_LENGTH_MAX } from '../../../interceptors/src/limits.js';
import {
  KID_LENGTH_MAX,
  mediaTypeOf,
  parseCompactToken,
  parseForeignToken,
} from '../../../interceptors/src/token/compact.js';

const TYPE = 'at+jwt';
const HEADER = { alg: 'EdDSA', kid: 'key-1', typ: TYPE };
const SIGNATURE = Buffer.alloc(64, 0xa5).toString('base64url');

const encode = (value: unknown) =>
  Buffer.from(typeof value === 'string' ? value : JSON.stringify(value)).toString('base64url');
const textOf = (header: unknown, payload: unknown = { sub: 'alice' }, signature = SIGNATURE) =>
  `${encode(header)}.${encode(payload)}.${signature}`;
const parse = (text: string) => parseCompactToken(text, TYPE);

describe('a compact token', () => {
  it('is parsed', () => {
    const text = textOf(HEADER);
    const parsed = parse(text);
    expect(parsed).to.include({ text, algorithm: 'EdDSA', keyId: 'key-1' });
    expect(Buffer.from(parsed?.payload ?? []).toString()).to.equal('{"sub":"alice"}');
  });

  const headers: Record<string, unknown> = {
    'an embedded key (jwk)': { ...HEADER, jwk: { kty: 'OKP', crv: 'Ed25519', x: 'AA' } },
    'a key address (jku)': { ...HEADER, jku: 'https://evil.example/keys' },
    'a certificate address (x5u)': { ...HEADER, x5u: 'https://evil.example/cert' },
    'a certificate (x5c)': { ...HEADER, x5c: ['AA'] },
    'a certificate hash (x5t)': { ...HEADER, x5t: 'AA' },
    'critical extensions (crit)': { ...HEADER, crit: ['exp'] },
    'an unencoded payload (b64)': { ...HEADER, b64: false },
    'a compressed payload (zip)': { ...HEADER, zip: 'DEF' },
    'a nested token (cty)': { ...HEADER, cty: 'JWT' },
    'an encryption (enc)': { ...HEADER, enc: 'A256GCM' },
    'any other member': { ...HEADER, nonsense: 1 },
    'another type': { ...HEADER, typ: 'JWT' },
    'a type in other letters': { ...HEADER, typ: 'AT+JWT' },
    'a type with its media prefix': { ...HEADER, typ: 'application/at+jwt' },
    'the type of a broadcast': { ...HEADER, typ: 'portcullis-revocations+jws' },
    'no type': { alg: 'EdDSA', kid: 'key-1' },
    'a type that is a list': { ...HEADER, typ: [TYPE] },
    'no algorithm': { kid: 'key-1', typ: TYPE },
    'an algorithm that is a list': { ...HEADER, alg: ['EdDSA'] },
    'an algorithm that is null': { ...HEADER, alg: null },
    'no kid': { alg: 'EdDSA', typ: TYPE },
    'no kid, and something else instead': { alg: 'EdDSA', typ: TYPE, jwk: {} },
    'an empty kid': { ...HEADER, kid: '' },
    'a kid that is a number': { ...HEADER, kid: 1 },
    'a kid that is an object': { ...HEADER, kid: { toString: 'key-1' } },
    'a kid that is a list': { ...HEADER, kid: ['key-1'] },
    'a kid that is too long': { ...HEADER, kid: 'k'.repeat(KID_LENGTH_MAX + 1) },
    'a member twice': '{"alg":"none","alg":"EdDSA","kid":"key-1","typ":"at+jwt"}',
    'a kid twice': '{"alg":"EdDSA","kid":"key-1","kid":"key-1","typ":"at+jwt"}',
    'a member named __proto__': '{"alg":"EdDSA","kid":"key-1","__proto__":{"typ":"at+jwt"}}',
    'no object': '[]',
    'no JSON': 'EdDSA',
    'nothing in it': {},
  };
  for (const [what, header] of Object.entries(headers)) {
    it(`is rejected with a header that has ${what}`, () => {
      expect(parse(textOf(header))).to.equal(undefined);
    });
  }

  it('may have any short text as kid', () => {
    for (const kid of ['__proto__', '../../etc/passwd', "' OR 1=1 --", 'k'.repeat(KID_LENGTH_MAX)]) {
      expect(parse(textOf({ ...HEADER, kid }))?.keyId).to.equal(kid);
    }
  });

  const good = textOf(HEADER);
  const [header = '', payload = '', signature = ''] = good.split('.');
  const spellings: Record<string, string> = {
    'padding at the end': `${good}==`,
    'padding within': `${header}=.${payload}.${signature}`,
    'white space before': ` ${good}`,
    'white space after': `${good} `,
    'a line end after': `${good}\n`,
    'white space within': `${header}. ${payload}.${signature}`,
    'a NUL after': `${good}\0`,
    'an empty header': `.${payload}.${signature}`,
    'an empty payload': `${header}..${signature}`,
    'no signature': `${header}.${payload}.`,
    'two segments': `${header}.${payload}`,
    'a fourth segment': `${good}.${signature}`,
    'an empty fourth segment': `${good}.`,
    'the five segments of an encrypted token': `${good}.${payload}.${signature}`,
    'the JSON serialisation': JSON.stringify({ protected: header, payload, signature }),
    'nothing at all': '',
    'a length that no bytes have': `${header}.${payload}.${signature}AAA`,
  };
  for (const [what, text] of Object.entries(spellings)) {
    it(`is rejected with ${what}`, () => {
      expect(parse(text)).to.equal(undefined);
    });
  }

  it('is rejected in the standard base64 alphabet', () => {
    const odd = Buffer.from([0xfb, 0xff, 0xbf]);
    expect(parse(`${header}.${payload}.${odd.toString('base64url')}`)).to.not.equal(undefined);
    expect(parse(`${header}.${payload}.${odd.toString('base64')}`)).to.equal(undefined);
  });

  it('is rejected when the spare bits of any segment are set', () => {
    const alphabet = 'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_';
    // 64 bytes leave four spare bits in the last character: sixteen encodings, of which one is canonical.
    const last = alphabet.indexOf(signature.slice(-1));
    const others = [...Array(16).keys()].map((bits) => alphabet[(last & 0b110000) | bits] ?? '');
    const taken = others.filter((character) =>
      parse(`${header}.${payload}.${signature.slice(0, -1)}${character}`),
    );
    expect(taken).to.deep.equal([signature.slice(-1)]);
  });

  it('is rejected when it is longer than the limit', () => {
    const filler = (length: number) => 'A'.repeat(length);
    const room = TOKEN_LENGTH_MAX - header.length - signature.length - 2;
    const length = room - (room % 4);
    expect(parse(`${header}.${filler(length)}.${signature}`)).to.not.equal(undefined);
    expect(parse(`${header}.${filler(length + 4)}.${signature}`)).to.equal(undefined);
  });

  it('is accepted at the length that the caller allows, and rejected beyond it', () => {
    expect(parseCompactToken(good, TYPE, good.length)).to.not.equal(undefined);
    expect(parseCompactToken(good, TYPE, good.length - 1)).to.equal(undefined);
  });

  it('is parsed also when it is the first one of the process', async () => {
    // Another query is another module.
    const file = `../../../interceptors/src/token/compact.js?${randomUUID()}`;
    const fresh: { parseCompactToken: typeof parseCompactToken } = await import(file);
    expect(fresh.parseCompactToken(good, TYPE)).to.include({ keyId: 'key-1' });
  });

  it('has exactly one encoding: no single edit results in another token with the same content', () => {
    const meaning = (text: string) => {
      const parsed = parse(text);
      return (
        parsed &&
        [
          parsed.algorithm,
          parsed.keyId,
          Buffer.from(parsed.payload).toString('hex'),
          Buffer.from(text.split('.')[2] ?? '', 'base64url').toString('hex'),
        ].join(' ')
      );
    };
    fc.assert(
      fc.property(
        fc.nat(good.length),
        fc.nat(2),
        fc.string({ unit: 'binary-ascii', maxLength: 2 }),
        (at, removed, inserted) => {
          const edited = good.slice(0, at) + inserted + good.slice(at + removed);
          fc.pre(edited !== good && edited.split('.')[0] === header);
          expect(meaning(edited)).to.not.equal(meaning(good));
        },
      ),
      { numRuns: 2000 },
    );
  });

  it('never makes the parser throw', () => {
    fc.assert(
      fc.property(fc.array(fc.uint8Array({ maxLength: 40 }), { maxLength: 5 }), (segments) => {
        const text = segments.map((bytes) => Buffer.from(bytes).toString('base64url')).join('.');
        expect(parse(text)).to.equal(undefined);
      }),
    );
  });
});

describe('a compact token of another issuer', () => {
  const parseForeign = (header: unknown, types = ['at+jwt']) =>
    parseForeignToken(textOf(header), new Set(types.map(mediaTypeOf)));

  it('is parsed, whatever else its header contains', () => {
    const parsed = parseForeign({ ...HEADER, x5t: 'AA', extra: { deep: [true] } });
    expect(parsed).to.include({ algorithm: 'EdDSA', keyId: 'key-1' });
    expect(Buffer.from(parsed?.payload ?? []).toString()).to.equal('{"sub":"alice"}');
    expect(parsed?.signed.toString()).to.equal(parsed?.text.split('.').slice(0, 2).join('.'));
  });

  it('may lack a kid, and name Ed25519 as its algorithm, which is EdDSA', () => {
    expect(parseForeign({ alg: 'Ed25519', typ: TYPE })).to.include({ algorithm: 'EdDSA', keyId: '' });
  });

  it('is rejected with a parameter that brings a key, changes its meaning, or is of another type', () => {
    const refused = [
      ...['jwk', 'jku', 'x5c', 'x5u', 'crit', 'b64', 'zip', 'cty'].map((name) => ({ [name]: null })),
      ...[undefined, null, 7, ['EdDSA']].map((alg) => ({ alg })),
      ...[null, 7, ['key-1'], {}].map((kid) => ({ kid })),
      ...[undefined, null, 7, [TYPE], '', 'JWT'].map((typ) => ({ typ })),
    ];
    for (const over of refused) {
      expect(parseForeign({ ...HEADER, ...over }), JSON.stringify(over)).to.equal(undefined);
    }
  });

  it('is rejected when its kid is longer than 255 characters', () => {
    expect(parseForeign({ ...HEADER, kid: 'k'.repeat(255) })?.keyId).to.have.length(255);
    expect(parseForeign({ ...HEADER, kid: 'k'.repeat(256) })).to.equal(undefined);
  });

  it('is rejected when it is not in three canonical segments', () => {
    const [header = '', payload = ''] = textOf(HEADER).split('.');
    for (const text of ['', 'x', `${header}.${payload}`, `${textOf(HEADER)}=`]) {
      expect(parseForeignToken(text, new Set([mediaTypeOf(TYPE)])), text).to.equal(undefined);
    }
  });

  it('has a type that is compared without letter case and without its media prefix', () => {
    for (const typ of ['at+jwt', 'AT+JWT', 'application/at+jwt', 'Application/AT+jwt']) {
      expect(parseForeign({ ...HEADER, typ }), typ).to.not.equal(undefined);
    }
    expect(parseForeign({ ...HEADER, typ: 'text/at+jwt' })).to.equal(undefined);
  });

  it('may lack a type only where that is configured, and a type of no name is not the missing one', () => {
    expect(parseForeign({ alg: 'EdDSA' }, [''])).to.not.equal(undefined);
    expect(parseForeign({ alg: 'EdDSA', typ: 'application/' }, [''])).to.equal(undefined);
  });
});
