/** JSON that two verifiers cannot read differently. */

import { expect } from 'chai';
import fc from 'fast-check';
import { JSON_DEPTH_MAX, parseJsonObject } from '../../../interceptors/src/token/strict-json.js';

const parse = (text: string) => parseJsonObject(Buffer.from(text));

/** JSON values whose objects have no member named `__proto__`, which is refused on purpose. */
const value = fc.letrec((tie) => ({
  value: fc.oneof(
    { maxDepth: 4 },
    fc.constantFrom(null, true, false),
    fc.integer(),
    fc.string({ unit: 'binary' }),
    fc.array(tie('value'), { maxLength: 4 }),
    fc.dictionary(fc.string(), tie('value'), { maxKeys: 4, noNullPrototype: true }),
  ),
})).value;
const object = fc.dictionary(fc.string(), value, { maxKeys: 5, noNullPrototype: true });

describe('strict JSON', () => {
  it('reads every object that JSON.stringify writes', () => {
    fc.assert(
      fc.property(object, fc.boolean(), (original, isSpaced) => {
        fc.pre(!JSON.stringify(original).includes('"__proto__"'));
        const text = JSON.stringify(original, null, isSpaced ? 2 : 0);
        expect(parse(text)).to.deep.equal(JSON.parse(text));
      }),
    );
  });

  it('rejects every object with a duplicate member, at any depth', () => {
    fc.assert(
      fc.property(object, fc.string(), value, value, fc.nat(2), (others, name, first, second, depth) => {
        const member = (content: unknown) => `${JSON.stringify(name)}:${JSON.stringify(content)}`;
        const rest = Object.keys(others).length === 0 ? '' : `${JSON.stringify(others).slice(1, -1)},`;
        let text = `{${rest}${member(first)},${member(second)}}`;
        for (let level = 0; level < depth; level += 1) text = `{"wrap${level}":[0,${text}]}`;
        expect(parse(text)).to.equal(undefined);
      }),
    );
  });

  const refused: Record<string, string> = {
    'a member twice': '{"sub":"alice","sub":"bob"}',
    'a member twice with equal values': '{"a":1,"a":1}',
    'a member twice, once spelt with an escape': '{"sub":"alice","\\u0073ub":"bob"}',
    'a member twice in a nested object': '{"act":{"sub":"a","sub":"b"}}',
    'a member twice in an object within a list': '{"a":[1,{"b":1,"c":[],"b":2}]}',
    'a member twice with an object between': '{"a":{"b":1},"a":2}',
    'a member twice with a list between': '{"a":[1,2],"b":{},"a":2}',
    'a member twice after a string that looks like syntax': '{"x":"},{\\"a\\":","a":1,"a":2}',
    'a member named __proto__': '{"__proto__":{"roles":["admin"]}}',
    'a member named __proto__, escaped': '{"\\u005f_proto__":1}',
    'a list': '[]',
    'a string': '"{}"',
    null: 'null',
    'a number': '1',
    'two objects': '{}{}',
    'an object and a rest': '{}x',
    'a byte order mark': '\ufeff{}',
    'a trailing comma': '{"a":1,}',
    'a comment': '{"a":1/**/}',
    'single quotes': "{'a':1}",
    'NaN, which is not JSON': '{"a":NaN}',
    nothing: '',
  };
  for (const [what, text] of Object.entries(refused)) {
    it(`rejects ${what}`, () => {
      expect(parse(text)).to.equal(undefined);
    });
  }

  it('accepts equal names in different objects', () => {
    const text = '{"sub":"a","act":{"sub":"b","act":{"sub":"c"}},"list":[{"sub":1},{"sub":2}]}';
    expect(parse(text)).to.deep.equal(JSON.parse(text));
  });

  it('accepts the names of inherited properties as plain members', () => {
    const parsed = parse('{"constructor":1,"toString":2,"hasOwnProperty":3}');
    expect(parsed).to.deep.equal({ constructor: 1, toString: 2, hasOwnProperty: 3 });
  });

  it('rejects bytes that are not UTF-8', () => {
    for (const bytes of [[0xff], [0xc0, 0x80], [0xed, 0xa0, 0x80], [0xe2, 0x82], [0xf5, 0x80, 0x80, 0x80]]) {
      const text = Buffer.concat([Buffer.from('{"a":"'), Buffer.from(bytes), Buffer.from('"}')]);
      expect(parseJsonObject(text), text.toString('hex')).to.equal(undefined);
    }
  });

  it('rejects nesting beyond the limit, and accepts nesting up to it', () => {
    const nested = (depth: number, open: string, close: string) =>
      `{"a":${open.repeat(depth - 1)}0${close.repeat(depth - 1)}}`;
    for (const [open, close] of [
      ['[', ']'],
      ['{"a":', '}'],
    ] as const) {
      expect(parse(nested(JSON_DEPTH_MAX, open, close))).to.be.an('object');
      expect(parse(nested(JSON_DEPTH_MAX + 1, open, close))).to.equal(undefined);
    }
  });

  it('rejects deep nesting without overflowing the stack', () => {
    expect(parse(`{"a":${'['.repeat(4000)}${']'.repeat(4000)}}`)).to.equal(undefined);
  });

  it('never throws, whatever the bytes', () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 64 }), (bytes) => {
        const parsed = parseJsonObject(bytes);
        expect(parsed === undefined || typeof parsed === 'object').to.equal(true);
      }),
    );
  });
});
