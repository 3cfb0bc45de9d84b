/** Tests of user names: one canonical form of each, and no two that look alike. */

import { expect } from 'chai';
import fc from 'fast-check';
import { foldUsername, parseUsername, skeletonOf } from '../../../../services/auth/accounts/usernames.js';

describe('user names', () => {
  it('have one canonical form, however they are typed', () => {
    const spellings: [string, string[]][] = [
      ['alice_1.x-y', ['Alice_1.x-y', 'ALICE_1.X-Y', 'ａｌｉｃｅ＿１．ｘ－ｙ']],
      ['josé', ['José', 'jose\u0301', 'JOSE\u0301', 'ＪＯＳÉ']],
      ['straße', ['Straße']],
      ['δήμητρα', ['ΔΉΜΗΤΡΑ', 'Δήμητρα']],
      ['андрей', ['Андрей', 'АНДРЕИ\u0306']],
    ];
    for (const [name, typed] of spellings) {
      for (const text of typed) expect(parseUsername(text), text).to.equal(name);
    }
  });

  it('contain letters of one alphabet, and no invisible or compatibility characters', () => {
    const refused = [
      'аdmin', // a Cyrillic letter first
      'adminа',
      'αlpha',
      'рωс',
      '\u212Aelvin', // the Kelvin sign, which becomes a plain k when it is lowered
      '\u0130smail', // a dotted capital I, which becomes two characters
      'alice\u200B',
      'ali\u200Dce',
      'ali\u00ADce',
      'alice\u202E',
      'alice\n',
      ' alice',
      'al ice',
      'al\u3000ice',
      'al\0ice',
      'ali\uFFFDce',
      'ali\uD800ce',
      '\uFB01sh', // a ligature
      'ªbc',
      '١٢٣',
      'abc\u0301\u0301',
      'x\u0336yz',
      '日本語',
      'אבגד',
      '𝐚𝐛𝐜',
      '😀😀😀',
      'ab',
      'x'.repeat(65),
      '',
    ];
    for (const text of refused) expect(parseUsername(text), JSON.stringify(text)).to.equal(undefined);
    for (const text of ['abc', 'x'.repeat(64), '123', 'ї'.repeat(64)]) {
      expect(parseUsername(text), text).to.equal(text);
    }
  });

  it('are rejected by length before any further work', () => {
    const started = process.cpuUsage();
    for (const text of ['x'.repeat(1_000_000), 'e\u0301'.repeat(1_000_000), '\uFFFD'.repeat(1_000_000)]) {
      expect(parseUsername(text)).to.equal(undefined);
    }
    // Processor time, because other processes do not affect it.
    expect(process.cpuUsage(started).user).to.be.below(500_000);
  });

  it('have equal skeletons when people can mistake one for the other', () => {
    const twins: [string, string][] = [
      ['alice', 'а1ісе'.replace('1', 'l')].map((name) => name.normalize()) as [string, string],
      ['paypal', 'paypa1'],
      ['google', 'g00gle'],
      ['modern', 'rnodern'],
      ['www', 'vvvvvv'],
      ['coco', 'сосо'],
      ['jose', 'josé'],
      ['οδυσσευς', 'οδυσσευσ'],
      ['soren', 'søren'],
      ['strasse', 'straße'],
      ['vivo', 'νινο'],
      ['иван', 'йван'],
    ];
    for (const [one, other] of twins) expect(skeletonOf(one), other).to.equal(skeletonOf(other));
    for (const [one, other] of [
      ['alice', 'alicia'],
      ['bob', 'rob'],
      ['anna', 'hanna'],
      ['a.b.c', 'a-b-c'],
      ['иван', 'степан'],
    ] as const) {
      expect(skeletonOf(one)).to.not.equal(skeletonOf(other));
    }
  });

  it('keep their canonical form when parsed again, and fit into the database', () => {
    const letters = fc.constantFrom(...'abmwiA1_.-éÉeＡąßøαΣςώΩаЯйёџ\u0301\u0306\u200D\uFFFD\u212A');
    fc.assert(
      fc.property(fc.oneof(fc.string({ unit: letters, maxLength: 70 }), fc.string()), (text) => {
        const name = parseUsername(text);
        if (name === undefined) return;
        expect(parseUsername(name)).to.equal(name);
        expect(name.normalize('NFC')).to.equal(name);
        expect([...name].length).to.be.within(3, 64);
        const skeleton = skeletonOf(name);
        expect(skeletonOf(skeleton)).to.equal(skeleton);
        expect(skeletonOf(name.toUpperCase().toLowerCase())).to.equal(skeleton);
      }),
      { numRuns: 3000 },
    );
  });

  it('fold to one form in capitals and in lower case, for every letter that a name may have', () => {
    for (let codePoint = 0; codePoint < 0x2000; codePoint += 1) {
      const letter = String.fromCodePoint(codePoint);
      // A subscript iota is a letter of its own in capitals.
      if (letter.normalize('NFD').includes('\u0345')) continue;
      const name = parseUsername(`${letter}${letter}${letter}`);
      const shouted = name === undefined ? undefined : parseUsername(name.toUpperCase());
      if (name === undefined || shouted === undefined) continue;
      expect(foldUsername(shouted), name).to.equal(foldUsername(name));
    }
  });
});
