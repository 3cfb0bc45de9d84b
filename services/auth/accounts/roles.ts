/** The scopes that each role grants, and the services that scopes reach. */

import { invalidField } from '@portcullis/guard/errors';
import { LIST_LENGTH_MAX } from '../../common/validation/words.js';
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

/** The service that a scope belongs to: its first segment. */
export function audienceOfScope(scope: string): string {
  return scope.split('.', 1)[0] ?? '';
}

/** The services that a user with these scopes may reach. */
export function audiencesOfScopes(scopes: readonly string[]): readonly string[] {
  return [...new Set([OWN_AUDIENCE, ...scopes.map(audienceOfScope)])].sort();
}
