/** Identifiers that this system makes: UUIDs, whose canonical form is in lower case (RFC 9562 §4). */

const UUID = /^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/i;

/** A UUID of version 4: 122 of its bits are random (RFC 9562 §5.4). */
const RANDOM_UUID = /^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/;

/** Whether the canonical form of a UUID is of version 4, so that an honest maker's id cannot be guessed. */
export function isRandomUuid(uuid: string): boolean {
  return RANDOM_UUID.test(uuid);
}

/** The canonical form of a UUID in either case; undefined for any other text, which must not reach the database. */
export function parseUuid(text: string): string | undefined {
  return UUID.test(text) ? text.toLowerCase() : undefined;
}
