/** User names: one spelling of each, and no two that look alike. */

/** The shortest and the longest name, in characters. */
export const USERNAME_CHARACTERS_MIN = 3;
export const USERNAME_CHARACTERS_MAX = 64;

/** What a name must be, in words. */
export const USERNAME_RULE = `must have ${USERNAME_CHARACTERS_MIN} to ${USERNAME_CHARACTERS_MAX} letters of one alphabet (Latin, Greek or Cyrillic), digits, dots, underscores and hyphens`;

/** More than this is not even looked at: every character may be typed with three marks of its own. */
const TYPED_LENGTH_MAX = 4 * USERNAME_CHARACTERS_MAX;

/** Forms that exist for the sake of old East Asian character sets. */
const WIDE_AND_NARROW = /[\u3000\uFF01-\uFFEE]/g;

/** The letters of each alphabet without their marks. A name has letters of one of them. */
const ALPHABETS = [/^[a-zßæœøđðþłħŋ]$/, /^[α-ω]$/, /^[а-яђєѕіјљњћџґғқңүұһөә]$/];
const NEUTRAL = /^[0-9._-]$/;

/**
 * The name in its one spelling (UsernameCaseMapped of RFC 8265, for three alphabets), or undefined
 * when it cannot be one.
 */
export function parseUsername(text: string): string | undefined {
  if (text.length > TYPED_LENGTH_MAX) return undefined;
  const narrow = text.replace(WIDE_AND_NARROW, (character) => character.normalize('NFKC'));
  // Before the letters are lowered: the Kelvin sign would become a plain k, and two names one user.
  if ([...narrow].some((character) => character.normalize('NFKC') !== character)) return undefined;
  const name = narrow.toLowerCase().normalize('NFC');
  const characters = [...name];
  if (characters.length < USERNAME_CHARACTERS_MIN || characters.length > USERNAME_CHARACTERS_MAX) {
    return undefined;
  }
  const letters = characters.filter((character) => !NEUTRAL.test(character)).map(withoutMarks);
  const isOfOne = ALPHABETS.some((alphabet) => letters.every((letter) => alphabet.test(letter)));
  return isOfOne ? name : undefined;
}

/**
 * What a name looks like, after Unicode TS 39: names with the same skeleton could be taken for one
 * another. It errs on that side: marks do not count, nor what small type blurs.
 *
 * @param username - a name in its one spelling
 */
export function skeletonOf(username: string): string {
  return [...withoutMarks(username)].map((letter) => LOOKS.get(letter) ?? letter).join('');
}

function withoutMarks(text: string): string {
  return text.normalize('NFD').replace(/\p{M}/gu, '');
}

/** What letters look like, if not like themselves: each line lists a shape, and the letters that have it. */
const LOOKS: ReadonlyMap<string, string> = new Map(
  [
    ['a', 'αа'],
    ['ae', 'æ'],
    ['b', 'βвьъ'],
    ['c', 'с'],
    ['d', 'đð'],
    ['e', 'εеєә'],
    ['h', 'ħнңһ'],
    ['i', 'ιі'],
    ['j', 'ј'],
    ['k', 'κкқ'],
    ['l', '1ł'],
    ['n', 'ηπŋп'],
    ['o', '0οσςоөø'],
    ['oe', 'œ'],
    ['p', 'ρрþ'],
    ['r', 'гґғ'],
    // An m is as wide as an r and an n, and a w as two v.
    ['rn', 'mм'],
    ['s', 'ѕ'],
    ['ss', 'ß'],
    ['t', 'τт'],
    ['u', 'υμиџ'],
    ['v', 'ν'],
    ['vv', 'wωшщ'],
    ['x', 'χх'],
    ['y', 'γуүұ'],
    ['z', 'ζ'],
    ['φ', 'ф'],
    ['λ', 'л'],
  ].flatMap(([shape = '', letters = '']) => [...letters].map((letter) => [letter, shape] as const)),
);
