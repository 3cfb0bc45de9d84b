/** Two copies of a package in one process: objects of the one are not recognized by the other. */

import { ChannelCredentials, Server } from '@grpc/grpc-js';

/** Where every copy of this package names itself. */
const COPIES = Symbol.for('@portcullis/guard.copies');

type Registry = { [COPIES]?: Set<string> };

const registry = globalThis as Registry;
registry[COPIES] ??= new Set();
registry[COPIES].add(import.meta.url);

/** What to tell about other copies of this package in the process; empty when there is none. */
export function otherCopies(): string {
  const others = [...(registry[COPIES] ?? [])].filter((url) => url !== import.meta.url);
  if (others.length === 0) return '';
  return (
    `this process has loaded @portcullis/guard more than once, also from ${others.join(', ')}: ` +
    'install one version (npm ls @portcullis/guard)'
  );
}

const TWO_OF_GRPC =
  'from another copy of @grpc/grpc-js than the one that @portcullis/guard uses: install one version (npm ls @grpc/grpc-js)';

/**
 * Requires a server that the library can guard.
 *
 * @throws TypeError when it is none, or one of another copy of grpc-js
 */
export function requireOwnServer(server: unknown): void {
  if (server instanceof Server) return;
  throw new TypeError(
    nameOf(server) === Server.name ? `the server comes ${TWO_OF_GRPC}` : 'expected a Server of @grpc/grpc-js',
  );
}

/**
 * Requires credentials with which the library can open a channel.
 *
 * @throws TypeError when they are none, or of another copy of grpc-js
 */
export function requireOwnCredentials(credentials: unknown): void {
  if (credentials instanceof ChannelCredentials) return;
  const isOfAnother = typeof credentials === 'object' && credentials !== null && '_isSecure' in credentials;
  throw new TypeError(
    isOfAnother
      ? `the channel credentials come ${TWO_OF_GRPC}`
      : 'expected the channel credentials that credentials.createSsl() of @grpc/grpc-js returns',
  );
}

function nameOf(value: unknown): string | undefined {
  return typeof value === 'object' && value !== null ? value.constructor.name : undefined;
}
