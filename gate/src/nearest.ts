/** The name that was probably meant by one that does not exist. */

/** More edits than this are another name, however long it is. */
const EDITS_MAX = 4;

/** A name that another one begins with counts as meant from this length on. */
const PREFIX_LENGTH_MIN = 4;

/** Longer names are compared with nothing. */
const LENGTH_MAX = 200;

/** The existing name that is nearest to a misspelt one; undefined when none is near. Case and separators do not count. */
export function nearest(wrong: string, names: Iterable<string>): string | undefined {
  if (wrong.length > LENGTH_MAX) return undefined;
  const plain = plainOf(wrong);
  let found: string | undefined;
  let fewest = Math.min(EDITS_MAX, Math.max(1, Math.floor(plain.length / 3))) + 1;
  for (const name of names) {
    const other = plainOf(name);
    const edits = isPrefix(plain, other) ? 1 : editsBetween(plain, other, fewest);
    if (edits >= fewest) continue;
    fewest = edits;
    found = name;
  }
  return found;
}

function plainOf(name: string): string {
  return name.toLowerCase().replaceAll(/[-_.\s]/g, '');
}

function isPrefix(one: string, other: string): boolean {
  const shorter = Math.min(one.length, other.length);
  return shorter >= PREFIX_LENGTH_MIN && one.slice(0, shorter) === other.slice(0, shorter);
}

/** Insertions, deletions, replacements and exchanges of neighbours that make one of the other; `limit` when there are more. */
function editsBetween(one: string, other: string, limit: number): number {
  if (Math.abs(one.length - other.length) >= limit) return limit;
  let beforeLast: number[] = [];
  let last = Array.from({ length: other.length + 1 }, (_, at) => at);
  for (let row = 1; row <= one.length; row++) {
    const current = [row];
    for (let column = 1; column <= other.length; column++) {
      const isSame = one[row - 1] === other[column - 1];
      let edits = Math.min(
        (last[column] ?? 0) + 1,
        (current[column - 1] ?? 0) + 1,
        (last[column - 1] ?? 0) + (isSame ? 0 : 1),
      );
      const isExchange =
        row > 1 && column > 1 && one[row - 1] === other[column - 2] && one[row - 2] === other[column - 1];
      if (isExchange) edits = Math.min(edits, (beforeLast[column - 2] ?? 0) + 1);
      current.push(edits);
    }
    beforeLast = last;
    last = current;
  }
  return Math.min(limit, last[other.length] ?? limit);
}
