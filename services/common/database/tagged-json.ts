/**
 * Values as JSON that `psql` users can read, without loss. What JSON does not have is an object with one member:
 *
 * | value                | written as                                |
 * |----------------------|-------------------------------------------|
 * | `10n`                | `{"$bigint":"10"}`                        |
 * | a Date               | `{"$date":"2026-11-29T10:00:00.000Z"}`    |
 * | a Buffer             | `{"$bytes":"…"}`, base64                  |
 * | `undefined`          | `{"$undefined":true}`                     |
 * | a member named `$x`  | a member named `$$x`                      |
 */

/**
 * What JSON.stringify writes without loss.
 *
 * @param value - plain data: objects, arrays, and the values above
 * @throws TypeError for anything else
 */
export function toTagged(value: unknown): unknown {
  switch (typeof value) {
    case 'string':
    case 'boolean':
      return value;
    case 'number':
      if (Number.isFinite(value)) return value;
      throw new TypeError(`${value} cannot be written as JSON`);
    case 'bigint':
      return { $bigint: value.toString() };
    case 'undefined':
      return { $undefined: true };
    case 'object':
      return value === null ? null : objectToTagged(value);
    default:
      throw new TypeError(`a ${typeof value} cannot be written as JSON`);
  }
}

function objectToTagged(value: object): unknown {
  if (Array.isArray(value)) return value.map(toTagged);
  if (value instanceof Date) return { $date: value.toISOString() };
  if (Buffer.isBuffer(value)) return { $bytes: value.toString('base64') };
  const prototype: unknown = Object.getPrototypeOf(value);
  if (prototype !== Object.prototype && prototype !== null) {
    throw new TypeError(`a ${value.constructor.name} cannot be written as JSON`);
  }
  const members = Object.entries(value).map(
    ([name, member]) => [escapeName(name), toTagged(member)] as const,
  );
  return Object.fromEntries(members);
}

/** Reads what {@link toTagged} returned, out of parsed JSON. @throws TypeError for an unknown tag */
export function fromTagged(value: unknown): unknown {
  if (typeof value !== 'object' || value === null) return value;
  if (Array.isArray(value)) return value.map(fromTagged);
  const members = Object.entries(value);
  const [first] = members;
  if (first !== undefined && isTag(first[0])) return taggedValue(first[0], first[1]);
  return Object.fromEntries(members.map(([name, member]) => [unescapeName(name), fromTagged(member)]));
}

function isTag(name: string): boolean {
  return name.startsWith('$') && !name.startsWith('$$');
}

function taggedValue(tag: string, text: unknown): unknown {
  if (tag === '$undefined') return undefined;
  if (typeof text === 'string') {
    if (tag === '$bigint') return BigInt(text);
    if (tag === '$date') return new Date(text);
    if (tag === '$bytes') return Buffer.from(text, 'base64');
  }
  throw new TypeError(`${tag} is no tag of a stored value`);
}

function escapeName(name: string): string {
  return name.startsWith('$') ? `$${name}` : name;
}

function unescapeName(name: string): string {
  return name.startsWith('$') ? name.slice(1) : name;
}
