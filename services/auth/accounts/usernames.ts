/** User names: one canonical form of each, and no two that look alike. */

/** Minimum length of a name, in characters. */
const USERNAME_CHARACTERS_MIN = 3;

/** Maximum length of a name, in characters. */
const USERNAME_CHARACTERS_MAX = 64;

/** The rule for names, as error messages state it. */
export const USERNAME_RULE = `must have ${USERNAME_CHARACTERS_MIN} to ${USERNAME_CHARACTERS_MAX} letters of one alphabet (Latin, Greek or Cyrillic), digits, dots, underscores and hyphens`;

/** Maximum length of the typed text: each character may be typed with up to three combining marks. */
const TYPED_LENGTH_MAX = 4 * USERNAME_CHARACTERS_MAX;

/** Full-width and half-width forms, which exist for compatibility with East Asian character sets. */
const WIDE_AND_NARROW = /[\u3000\uFF01-\uFFEE]/g;

/** The letters of each alphabet, without marks. All letters of a name belong to one alphabet. */
const ALPHABETS = [/^[a-zßæœøđðþłħŋ]$/, /^[α-ω]$/, /^[а-яђєѕіјљњћџґғқңүұһөә]$/];
const NEUTRAL = /^[0-9._-]$/;

/**
 * The name in its canonical form (UsernameCaseMapped of RFC 8265, for three alphabets); undefined when the text is not a
 * valid name.
 */
export function parseUsername(text: string): string | undefined {
  if (text.length > TYPED_LENGTH_MAX) return undefined;
  const narrow = text.replace(WIDE_AND_NARROW, (character) => character.normalize('NFKC'));
  // Checked before lower-casing: the Kelvin sign would become a plain k, and two names would denote one user.
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
 * The form in which names are compared: Unicode's full case folding, so that a name typed in capitals is the same name.
 * Capitals have no final sigma and no sharp s. The database has the same rule (migration 0015).
 *
 * @param username - a name in its canonical form
 */
export function foldUsername(username: string): string {
  return username.replaceAll('ς', 'σ').replaceAll('ß', 'ss');
}

/**
 * The appearance of a name, after Unicode TS 39: two names with the same skeleton can be mistaken for each other. The
 * comparison is strict: it ignores marks, and differences that are hard to see in small type.
 *
 * @param username - a name in its canonical form
 */
export function skeletonOf(username: string): string {
  return [...withoutMarks(username)].map((letter) => LOOKS.get(letter) ?? letter).join('');
}

function withoutMarks(text: string): string {
  return text.normalize('NFD').replace(/\p{M}/gu, '');
}

/** Letters that look like others: each line lists an appearance, and the letters that have it. */
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
    // An m looks like an r and an n, and a w like two v.
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
