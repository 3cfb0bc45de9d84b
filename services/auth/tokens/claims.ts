/** The claims of an access token (RFC 9068, RFC 8693, RFC 8705). */

import type { Grant } from './grant.js';

/** The claims that a grant determines; issuer, times and `jti` are added when the token is signed. */
export function claimsOf(grant: Grant): Record<string, unknown> {
  const { session, origin, actors = [], ancestors = [], certificateThumbprint } = grant;
  return {
    sub: grant.subject,
    aud: grant.audiences,
    client_id: grant.clientId,
    scope: grant.scopes.join(' '),
    roles: grant.roles,
    clients: grant.clients.map(([clientId, generation]) => [clientId, Number(generation)]),
    ...(session && {
      sid: session.sessionId,
      gen: Number(session.generation),
      auth_time: wholeSeconds(session.authTime),
      amr: session.amr,
    }),
    ...(origin && {
      origin: {
        iss: origin.issuer,
        sub: origin.subject,
        ...(origin.sessionId !== undefined && { sid: origin.sessionId }),
        jti: origin.tokenId,
        iat: origin.issuedAtSeconds,
        ...(origin.revocable !== undefined &&
          origin.revocable.size > 0 && { claims: Object.fromEntries(origin.revocable) }),
      },
      ...(grant.authTimeSeconds !== undefined && { auth_time: grant.authTimeSeconds }),
    }),
    ...(actors.length > 0 && { act: actorClaim(actors) }),
    ...(ancestors.length > 0 && { ancestors }),
    ...(certificateThumbprint !== undefined && { cnf: { 'x5t#S256': certificateThumbprint } }),
  };
}

/** The chain as RFC 8693 nests it: the current actor is the outermost. */
function actorClaim(actors: readonly string[]): object | undefined {
  const [sub, ...earlier] = actors;
  return sub === undefined ? undefined : { sub, ...(earlier.length > 0 && { act: actorClaim(earlier) }) };
}

/** A time in whole seconds, as JWTs state it. */
export function wholeSeconds(time: Date): number {
  return Math.floor(time.getTime() / 1000);
}
