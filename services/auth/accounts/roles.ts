/** What each role may do: the scopes it gives, and the services these reach. */

import type { Role } from '../records/users.js';
import { ROLES } from '../records/users.js';

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

/** Every scope that one of the roles gives, in a fixed order. */
export function scopesOfRoles(roles: readonly Role[]): readonly string[] {
  return [...new Set(roles.flatMap((role) => SCOPES_OF_ROLE[role]))].sort();
}

/** The service that a scope is about: its first segment. */
export function audienceOfScope(scope: string): string {
  return scope.split('.', 1)[0] ?? '';
}

/** The services that somebody with these scopes may reach. */
export function audiencesOfScopes(scopes: readonly string[]): readonly string[] {
  return [...new Set([OWN_AUDIENCE, ...scopes.map(audienceOfScope)])].sort();
}
