/**
 * Keeps secrets out of the log. Callers choose much of what is logged (names of headers, texts of errors), so every
 * text is cut before it is searched, and every search takes time in proportion to the text.
 */

/** Replaces a secret. */
export const REDACTED = '[redacted]';

/** The longest text of one field, in characters; a stack trace fits. */
const TEXT_MAX = 4_096;
/** All texts of one line together, in characters. */
const TEXTS_MAX = 32_768;
/** The longest name of a field, in characters. */
const NAME_MAX = 128;
/** Deeper levels of a logged object are omitted. */
const DEPTH_MAX = 8;
/** Longer lists and larger objects are truncated. */
const ITEMS_MAX = 100;

const SECRET_NAME =
  /(authorization|bearer|cookie|password|passwd|passphrase|secret|assertion|credentials?|token|pem|jwk|privatekey|encryptionkey|signingkey|clientkey|keymaterial)$|^(key|pwd|proofs?)$/;
/** The private members of a JSON Web Key. */
const PRIVATE_KEY_MEMBER = /^(d|p|q|dp|dq|qi|k|oth)$/;

/** A run of the characters of which compact tokens consist, with their dots. */
const TOKEN_RUN = /[A-Za-z0-9_.-]{10,}/g;
/** The first characters of a JWT's header, which is a JSON object. */
const TOKEN_START = 'eyJ';

/** What auth hands out beside JWTs: refresh tokens, reset tokens and client secrets, also when cut off. */
const OWN_SECRET = /pc[rps]_[A-Za-z0-9_-]{10,}/g;

/** The text without bearer tokens, JWTs, auth's own secrets, private keys and passwords in URLs. */
export function redactText(text: string): string {
  return text
    .replace(/\b(Bearer|Basic|DPoP)(\s+)[^\s"\\,]+/gi, `$1$2${REDACTED}`)
    .replace(TOKEN_RUN, redactToken)
    .replace(OWN_SECRET, REDACTED)
    .replace(/-----BEGIN [A-Z ]*PRIVATE KEY-----[^"]*?(-----END [A-Z ]*PRIVATE KEY-----|(?=")|$)/g, REDACTED)
    .replace(/(:\/\/[^\s:@/"]*):[^\s/"]+@/g, `$1:${REDACTED}@`);
}

/** A whole run is looked at once, wherever in it a token begins: a pattern that looks for the start is quadratic. */
function redactToken(run: string): string {
  const start = run.indexOf(TOKEN_START);
  if (start < 0 || run.indexOf('.', start) < 0) return run;
  return `${run.slice(0, start)}${REDACTED}`;
}

/**
 * The first characters of a text. What follows the last blank before the cut is dropped as well, so that no half of a
 * secret remains that would no longer be recognised.
 */
export function cutText(text: string, charactersMax: number = TEXT_MAX): string {
  if (text.length <= charactersMax) return text;
  const kept = text.slice(0, charactersMax);
  const blank = Math.max(kept.lastIndexOf(' '), kept.lastIndexOf('\n'));
  return `${kept.slice(0, blank + 1)}[${text.length - blank - 1} more characters]`;
}

/** The fields of a log line, or of a child log, without secrets and of bounded size. */
export function redactFields(fields: object): Record<string, unknown> {
  return redactObject(fields, { depth: 0, room: { characters: TEXTS_MAX } });
}

interface Place {
  readonly depth: number;
  /** What the texts of the line may still take. */
  readonly room: { characters: number };
}

function redactObject(fields: object, place: Place): Record<string, unknown> {
  const isJsonWebKey = 'kty' in fields;
  const out: Record<string, unknown> = {};
  for (const [name, value] of Object.entries(fields).slice(0, ITEMS_MAX)) {
    const secret = isSecretName(name) || (isJsonWebKey && PRIVATE_KEY_MEMBER.test(name));
    const isGiven = value !== undefined && value !== null;
    out[cutText(name, NAME_MAX)] = secret && isGiven ? REDACTED : redactValue(value, deeper(place));
  }
  return out;
}

function deeper({ depth, room }: Place): Place {
  return { depth: depth + 1, room };
}

function isSecretName(name: string): boolean {
  // The end of a name says what it is.
  const end = name.slice(-NAME_MAX).toLowerCase();
  return SECRET_NAME.test(end.replace(/[^a-z0-9]/g, ''));
}

function redactValue(value: unknown, place: Place): unknown {
  if (typeof value === 'string') return redactTextWithin(value, place);
  if (typeof value === 'bigint') return value.toString();
  if (typeof value !== 'object' || value === null) return value;
  if (place.depth > DEPTH_MAX) return '[deeper]';
  if (value instanceof Date) return value;
  if (value instanceof Error) return redactError(value, place);
  // Bytes are keys, hashes or message bodies, which do not help a reader of the log.
  if (ArrayBuffer.isView(value)) return `[${value.byteLength} bytes]`;
  if (value instanceof Map) return redactObject(Object.fromEntries(value), place);
  if (value instanceof Set || Array.isArray(value)) {
    return [...value].slice(0, ITEMS_MAX).map((item) => redactValue(item, deeper(place)));
  }
  if ('toJSON' in value && typeof value.toJSON === 'function')
    return redactValue(value.toJSON(), deeper(place));
  return redactObject(value, place);
}

function redactTextWithin(text: string, { room }: Place): string {
  const cut = cutText(text, Math.min(TEXT_MAX, room.characters));
  room.characters = Math.max(0, room.characters - cut.length);
  return cut;
}

function redactError(error: Error, place: Place): Record<string, unknown> {
  const { name, message, stack, cause } = error;
  const described = { ...error, type: name, message, stack };
  const own = redactObject(described, place);
  return cause === undefined ? own : { ...own, cause: redactValue(cause, deeper(place)) };
}
