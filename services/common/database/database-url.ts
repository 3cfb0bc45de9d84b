/**
 * The URL of a database, read as PostgreSQL's own clients read it: several hosts with commas between them, and a
 * password with characters that other URLs would have to escape.
 */

/** One URL for each host, with everything escaped, or the end of a sentence that says what is wrong. */
export type ParsedDatabaseUrl = { readonly urls: readonly string[] } | { readonly problem: string };

/** Why a URL cannot be used; the text itself, which holds a password, is never repeated. */
const PROBLEMS = {
  scheme: 'must begin with postgresql:// or postgres://',
  slash: 'has an unescaped / in the user or password: write it as %2F',
  at: 'has an unescaped @ in the user or password: write it as %40',
  percent: 'has a % that is not followed by two hexadecimal digits: write it as %25',
  host: 'must have hosts of the form HOST or HOST:PORT, with commas between several',
  session: 'has target_session_attrs with another value than read-write or primary',
} as const;

/**
 * Reads the URL of a database. With several hosts, all of them are tried in turn, and only one that takes writes is used.
 *
 * @see https://www.postgresql.org/docs/current/libpq-connect.html#LIBPQ-CONNSTRING-URIS
 */
export function parseDatabaseUrl(text: string): ParsedDatabaseUrl {
  const [, rest] = /^postgres(?:ql)?:\/\/(.*)$/s.exec(text) ?? [];
  if (rest === undefined) return { problem: PROBLEMS.scheme };
  const { credentials, address } = splitCredentials(rest);
  if (/%(?![0-9A-Fa-f]{2})/.test(rest)) return { problem: PROBLEMS.percent };
  if (address.includes('@')) return { problem: credentials === undefined ? PROBLEMS.slash : PROBLEMS.at };
  const parts = /^([^/?]*)(?:\/([^?]*))?(?:\?(.*))?$/s.exec(address);
  const [, hosts = '', database = '', query = ''] = parts ?? [];
  const parameters = new URLSearchParams(query);
  const session = parameters.get('target_session_attrs');
  if (session !== null && session !== 'read-write' && session !== 'primary')
    return { problem: PROBLEMS.session };
  parameters.delete('target_session_attrs');
  const named = hosts.split(',').map(hostOf);
  if (named.some((host) => host === undefined)) return { problem: PROBLEMS.host };
  const before = credentials === undefined ? '' : `${escapeCredentials(credentials)}@`;
  const after = parameters.size === 0 ? '' : `?${parameters.toString()}`;
  const path = database.replaceAll('#', '%23');
  return { urls: named.map((host) => `postgresql://${before}${host}/${path}${after}`) };
}

/** As libpq does: the credentials end at the first `@`, and a `/` before it means that there are none. */
function splitCredentials(rest: string): { credentials: string | undefined; address: string } {
  const end = /[@/]/.exec(rest);
  if (end?.[0] !== '@') return { credentials: undefined, address: rest };
  return { credentials: rest.slice(0, end.index), address: rest.slice(end.index + 1) };
}

/** Escapes what is not escaped yet. */
function escapeCredentials(credentials: string): string {
  const colon = credentials.indexOf(':');
  const escaped = (part: string): string => encodeURIComponent(decodeURIComponent(part));
  if (colon < 0) return escaped(credentials);
  return `${escaped(credentials.slice(0, colon))}:${escaped(credentials.slice(colon + 1))}`;
}

/** An empty host stands for a Unix socket. */
function hostOf(text: string): string | undefined {
  const host = /^(?:\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]*|%2[Ff][A-Za-z0-9._%-]*)(?::([0-9]{1,5}))?$/.exec(text);
  return host === null || Number(host[1] ?? 1) > 65_535 || host[1] === '0' ? undefined : text;
}
