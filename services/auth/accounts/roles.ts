/** What roles grant under the policy in force. */

import { invalidField } from '@portcullis/guard/errors';
import { LIST_LENGTH_MAX, requireKnownWords, WORD_LENGTH_MAX } from '../../common/validation/words.js';
import type { Policy } from '../records/policy.js';

/** The audience of this service; every user may reach it. */
export const OWN_AUDIENCE = 'auth';

/** The role that administers this service: the access rules of its methods name it. */
export const ADMIN_ROLE = 'admin';

/**
 * The roles of a request, without duplicates and sorted. Whether they exist is known only inside a transaction
 * ({@link requireKnownRoles}).
 *
 * @throws ServiceError FIELD_INVALID
 */
export function parseRoles(texts: readonly string[]): readonly string[] {
  if (texts.length > LIST_LENGTH_MAX) {
    throw invalidField('roles', `must have at most ${LIST_LENGTH_MAX} members`);
  }
  for (const [index, text] of texts.entries()) {
    if (text.length === 0 || text.length > WORD_LENGTH_MAX) {
      throw invalidField(`roles[${index}]`, `must have 1 to ${WORD_LENGTH_MAX} characters`);
    }
  }
  return [...new Set(texts)].sort();
}

/**
 * Requires that the policy has every role.
 *
 * @param fieldOf - the field of the request that holds the role at this place
 * @throws ServiceError FIELD_INVALID that names the roles there are
 */
export function requireKnownRoles(
  { scopesOfRole }: Policy,
  roles: readonly string[],
  fieldOf = (index: number): string => `roles[${index}]`,
): void {
  const unknown = roles.findIndex((role) => !scopesOfRole.has(role));
  if (unknown >= 0)
    throw invalidField(fieldOf(unknown), `must be one of ${[...scopesOfRole.keys()].join(', ')}`);
}

/** Every scope that one of the roles grants, without duplicates and sorted. */
export function scopesOfRoles({ scopesOfRole }: Policy, roles: readonly string[]): readonly string[] {
  return [...new Set(roles.flatMap((role) => scopesOfRole.get(role) ?? []))].sort();
}

/**
 * The roles that a token with these scopes may contain: of each role it has every scope that the role grants at the token's
 * audiences, and at least one. Otherwise a narrowed token would do by its roles what its scopes no longer allow.
 */
export function rolesWithin(
  policy: Policy,
  roles: Iterable<string>,
  { scopes, audiences }: { readonly scopes: readonly string[]; readonly audiences: readonly string[] },
): readonly string[] {
  return [...roles].filter((role) => {
    const granted = policy.scopesOfRole.get(role) ?? [];
    const needed = granted.filter((scope) => audiences.includes(audienceOfScope(policy, scope)));
    return needed.length > 0 && needed.every((scope) => scopes.includes(scope));
  });
}

/** Whether a role grants the scope. */
function isScopeOfRole({ roles }: Policy, scope: string): boolean {
  return roles.some(({ scopes }) => scopes.includes(scope));
}

/** Whether the scopes of a role reach the service. */
function isAudienceOfRole(policy: Policy, audience: string): boolean {
  const scopes = policy.roles.flatMap((role) => role.scopes);
  return audiencesOfScopes(policy, scopes).includes(audience);
}

/**
 * Requires that roles grant the scopes and reach the audiences that a user asks for.
 *
 * @throws ServiceError FIELD_INVALID
 */
export function requireUserRights(
  policy: Policy,
  { scopes, audiences }: { readonly scopes: readonly string[]; readonly audiences: readonly string[] },
): void {
  const isKnownAudience = (audience: string) => isAudienceOfRole(policy, audience);
  requireKnownWords('audiences', audiences, { kind: 'audience of users', isKnown: isKnownAudience });
  const isKnown = (scope: string) => isScopeOfRole(policy, scope);
  requireKnownWords('scopes', scopes, { kind: 'scope of users', isKnown });
}

/** The service that a scope belongs to: the one that has registered it, and else the one that its first segment names. */
export function audienceOfScope(policy: Pick<Policy, 'audienceOfScope'>, scope: string): string {
  return policy.audienceOfScope.get(scope) ?? firstSegment(scope);
}

function firstSegment(scope: string): string {
  return scope.split('.', 1)[0] ?? '';
}

/** The services that a user with these scopes may reach. */
export function audiencesOfScopes(policy: Policy, scopes: readonly string[]): readonly string[] {
  return [...new Set([OWN_AUDIENCE, ...scopes.map((scope) => audienceOfScope(policy, scope))])].sort();
}

/**
 * Whether the client serves the audience: the policy names it for the service, or names no client and it has the same name.
 */
export function isServedBy({ services }: Policy, audience: string, clientId: string): boolean {
  const clientIds = services.find((service) => service.audience === audience)?.clientIds ?? [];
  return clientIds.length === 0 ? audience === clientId : clientIds.includes(clientId);
}
