/** The scopes that each role grants, and the services that scopes reach. */

import { invalidField } from '@portcullis/guard/errors';
import { LIST_LENGTH_MAX, parseWords, requireKnownWords } from '../../common/validation/words.js';
import { ROLES, type Role } from '../records/users.js';

/** The audience of this service; every user may reach it. */
export const OWN_AUDIENCE = 'auth';

const CUSTOMER_SCOPES = [
  'auth.self',
  'inventory.read',
  'inventory.reserve',
  'payment.read',
  'payment.pay',
] as const;

const SCOPES_OF_ROLE: Readonly<Record<Role, readonly string[]>> = {
  customer: CUSTOMER_SCOPES,
  operator: [...CUSTOMER_SCOPES, 'inventory.manage', 'payment.manage'],
  security: ['auth.self', 'auth.revoke', 'auth.security.read', 'auth.users.read'],
  admin: [
    'auth.self',
    'auth.users.read',
    'auth.users.write',
    'auth.clients.write',
    'auth.keys.write',
    'auth.revoke',
    'auth.security.read',
  ],
};

/** Whether the text is a role. */
export function isRole(text: string): text is Role {
  return ROLES.some((role) => role === text);
}

/**
 * The roles of a request, without duplicates and sorted.
 *
 * @throws ServiceError FIELD_INVALID
 */
export function parseRoles(texts: readonly string[]): readonly Role[] {
  if (texts.length > LIST_LENGTH_MAX) {
    throw invalidField('roles', `must have at most ${LIST_LENGTH_MAX} members`);
  }
  const roles = texts.map((text, index) => {
    if (!isRole(text)) throw invalidField(`roles[${index}]`, `must be one of ${ROLES.join(', ')}`);
    return text;
  });
  return [...new Set(roles)].sort();
}

/** Every scope that one of the roles grants, without duplicates and sorted. */
export function scopesOfRoles(roles: readonly Role[]): readonly string[] {
  return [...new Set(roles.flatMap((role) => SCOPES_OF_ROLE[role]))].sort();
}

/**
 * The roles that a token with these scopes may contain: of each role it has every scope that the role grants at the token's
 * audiences, and at least one. Otherwise a narrowed token would do by its roles what its scopes no longer allow.
 */
export function rolesWithin(
  roles: Iterable<string>,
  { scopes, audiences }: { readonly scopes: readonly string[]; readonly audiences: readonly string[] },
): readonly Role[] {
  return [...roles].filter(isRole).filter((role) => {
    const needed = SCOPES_OF_ROLE[role].filter((scope) => audiences.includes(audienceOfScope(scope)));
    return needed.length > 0 && needed.every((scope) => scopes.includes(scope));
  });
}

/** Whether a role grants the scope. */
export function isScopeOfRole(scope: string): boolean {
  return SCOPES_OF_ALL_ROLES.has(scope);
}

/** Whether the scopes of a role reach the service. */
export function isAudienceOfRole(audience: string): boolean {
  return AUDIENCES_OF_ALL_ROLES.has(audience);
}

/**
 * The scopes that a user asks for, each once.
 *
 * @throws ServiceError FIELD_INVALID for a scope that no role grants
 */
export function parseUserScopes(scopes: readonly string[]): readonly string[] {
  const words = parseWords('scopes', scopes);
  requireKnownWords('scopes', words, { kind: 'scope of users', isKnown: isScopeOfRole });
  return words;
}

/**
 * The audiences that a user asks for, each once.
 *
 * @throws ServiceError FIELD_INVALID for an audience that no role reaches
 */
export function parseUserAudiences(audiences: readonly string[]): readonly string[] {
  const words = parseWords('audiences', audiences);
  requireKnownWords('audiences', words, { kind: 'audience of users', isKnown: isAudienceOfRole });
  return words;
}

/** The service that a scope belongs to: its first segment. */
export function audienceOfScope(scope: string): string {
  return scope.split('.', 1)[0] ?? '';
}

/** The services that a user with these scopes may reach. */
export function audiencesOfScopes(scopes: readonly string[]): readonly string[] {
  return [...new Set([OWN_AUDIENCE, ...scopes.map(audienceOfScope)])].sort();
}

const SCOPES_OF_ALL_ROLES: ReadonlySet<string> = new Set(scopesOfRoles(ROLES));
const AUDIENCES_OF_ALL_ROLES: ReadonlySet<string> = new Set(audiencesOfScopes([...SCOPES_OF_ALL_ROLES]));
