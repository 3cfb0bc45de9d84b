/** Identifiers that this system makes: UUIDs, whose canonical form is in lower case (RFC 9562 §4). */

const UUID = /^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/i;

/** The canonical form of a UUID in either case; undefined for any other text, which must not reach the database. */
export function parseUuid(text: string): string | undefined {
  return UUID.test(text) ? text.toLowerCase() : undefined;
}
