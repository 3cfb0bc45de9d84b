/** Mutants of a valid token: all single edits of several kinds, then random combinations of edits. */

import type { Random } from '../shared/random.js';
import { segmentsOf } from './forge.js';

/** A changed value of `authorization`. */
interface Mutant {
  readonly className: string;
  readonly what: string;
  /** The value; each character is one byte. */
  readonly value: string;
}

/** All mutants of one kind, by index. */
interface Family {
  readonly className: string;
  readonly size: number;
  at(index: number): { readonly what: string; readonly value: string };
}

const SCHEME = 'Bearer ';
const ALPHABET = 'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_';
/** Characters to insert: the alphabet of base64url, and characters that confuse parsers. */
const PIECES = [...`${ALPHABET}.=+/ ,;:%"{}~\0\t\n\r\x7f\x80\xa0\xff`];
const EDITS_MAX = 12;

/**
 * Yields the requested number of mutants: every family completely when they fit, else an equal part of each; the rest
 * are random combinations of edits.
 *
 * @param good - a valid token
 * @param other - a valid token of another user, from which pieces are taken; it is never yielded
 */
export function* mutantsOf(
  good: string,
  other: string,
  options: { readonly count: number; readonly random: Random },
): Generator<Mutant> {
  const { count, random } = options;
  const families = familiesOf(good);
  const whole = families.reduce((sum, { size }) => sum + size, 0);
  const part = Math.min(1, count / whole);
  let made = 0;
  for (const family of families) {
    const wanted = Math.floor(family.size * part);
    // A random start for each family, so that short runs cover different positions.
    const start = random.integer(0, Math.max(0, family.size - 1));
    for (let index = 0; index < wanted && made < count; index += 1) {
      const mutant = family.at((start + Math.floor(index / part)) % family.size);
      made += 1;
      yield { className: family.className, ...mutant };
    }
  }
  while (made < count) {
    const text = editedAtRandom(good, other, random);
    // Segments of the other token can add up to that token, which is valid.
    if (text === good || text === other) continue;
    made += 1;
    yield { className: 'mutants: several edits at random', what: text, value: SCHEME + text };
  }
}

function familiesOf(good: string): Family[] {
  const value = SCHEME + good;
  const pieces = PIECES.length;
  return [
    {
      className: 'mutants: every bit flipped',
      size: value.length * 8,
      at: (index) => {
        const [at, bit] = [index >> 3, index & 7];
        const flipped = String.fromCharCode(value.charCodeAt(at) ^ (1 << bit));
        return { what: `bit ${bit} of character ${at}`, value: substituted(value, at, flipped) };
      },
    },
    {
      className: 'mutants: every truncation',
      size: 2 * value.length - 1,
      at: (index) =>
        index < value.length
          ? { what: `the first ${index} characters`, value: value.slice(0, index) }
          : {
              what: `without the first ${index - value.length + 1} characters`,
              value: value.slice(index - value.length + 1),
            },
    },
    {
      className: 'mutants: every deletion',
      size: 4 * (value.length - 4),
      at: (index) => {
        const [at, length] = [index >> 2, (index & 3) + 1];
        return { what: `without ${length} characters at ${at}`, value: shortened(value, at, length) };
      },
    },
    {
      className: 'mutants: every insertion',
      size: (value.length + 1) * pieces,
      at: (index) => {
        const at = Math.floor(index / pieces);
        const piece = PIECES[index % pieces] ?? 'A';
        return { what: `${JSON.stringify(piece)} at ${at}`, value: replaced(value, at, 0, piece) };
      },
    },
    {
      className: 'mutants: every substitution',
      size: value.length * pieces,
      at: (index) => {
        const at = Math.floor(index / pieces);
        const piece = PIECES[index % pieces] ?? 'A';
        const other = piece === value.charAt(at) ? '!' : piece;
        return { what: `${JSON.stringify(other)} for character ${at}`, value: substituted(value, at, other) };
      },
    },
    decodedBits(good),
  ];
}

/** Flips one bit of the decoded segments, and encodes them canonically. */
function decodedBits(good: string): Family {
  const { header, payload, signature } = segmentsOf(good);
  const segments = [header, payload, signature].map((segment) => Buffer.from(segment, 'base64url'));
  const size = segments.reduce((sum, { length }) => sum + 8 * length, 0);
  return {
    className: 'mutants: every bit of header, claims and signature',
    size,
    at: (index) => {
      let rest = index;
      const changed = segments.map((segment) => {
        const bits = 8 * segment.length;
        const isHit = rest >= 0 && rest < bits;
        const bytes = Buffer.from(segment);
        if (isHit) bytes.writeUInt8(bytes.readUInt8(rest >> 3) ^ (1 << (rest & 7)), rest >> 3);
        rest -= bits;
        return bytes.toString('base64url');
      });
      return { what: `bit ${index} of the decoded segments`, value: SCHEME + changed.join('.') };
    },
  };
}

/** Another character in one place. The scheme in the other case is the same scheme (RFC 9110 §11.1), so it gets `!`. */
function substituted(value: string, at: number, piece: string): string {
  const isSameScheme = at < SCHEME.length && piece.toLowerCase() === value.charAt(at).toLowerCase();
  return replaced(value, at, 1, isSameScheme ? '!' : piece);
}

function shortened(value: string, at: number, length: number): string {
  return value.slice(0, at) + value.slice(at + length);
}

function replaced(value: string, at: number, length: number, piece: string): string {
  return value.slice(0, at) + piece + value.slice(at + length);
}

function editedAtRandom(good: string, other: string, random: Random): string {
  let text = good;
  for (let left = random.integer(1, EDITS_MAX); left > 0; left -= 1) text = edited(text, other, random);
  return text;
}

function edited(text: string, other: string, random: Random): string {
  const at = random.integer(0, text.length);
  const length = random.integer(1, 16);
  switch (random.integer(0, 6)) {
    case 0:
      return replaced(text, at, 0, random.pick(PIECES));
    case 1:
      return replaced(text, at, 1, random.pick(PIECES));
    case 2:
      return shortened(text, at, length);
    case 3:
      return replaced(text, at, 0, text.slice(at, at + length));
    case 4:
      return replaced(text, at, length, other.slice(at, at + length));
    case 5:
      return exchangedSegments(text, other, random);
    default:
      return replaced(text, at, length, [...text.slice(at, at + length)].reverse().join(''));
  }
}

function exchangedSegments(text: string, other: string, random: Random): string {
  const [mine, theirs] = [text.split('.'), other.split('.')];
  const at = random.integer(0, Math.max(0, mine.length - 1));
  mine[at] = random.next() < 0.5 ? (theirs[at] ?? '') : (mine[random.integer(0, mine.length - 1)] ?? '');
  return mine.join('.');
}
