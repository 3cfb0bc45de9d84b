/** The policy, arranged for lookups. */

import type { Policy, PolicyDocument } from '../records/policy.js';

/** The policy of a document, with its lists sorted. */
export function policyOf(
  { services, roles }: PolicyDocument,
  { etag, changed, updateTime }: Pick<Policy, 'etag' | 'changed' | 'updateTime'>,
): Policy {
  const sortedServices = services
    .map((service) => ({
      ...service,
      clientIds: service.clientIds.toSorted(),
      scopes: service.scopes.toSorted(),
    }))
    .sort(by(({ audience }) => audience));
  const sortedRoles = roles
    .map((role) => ({ ...role, scopes: role.scopes.toSorted() }))
    .sort(by(({ role }) => role));
  return {
    services: sortedServices,
    roles: sortedRoles,
    etag,
    changed,
    updateTime,
    scopesOfRole: new Map(sortedRoles.map(({ role, scopes }) => [role, scopes])),
    audienceOfScope: new Map(
      sortedServices.flatMap(({ audience, scopes }) => scopes.map((scope) => [scope, audience] as const)),
    ),
  };
}

function by<T>(nameOf: (item: T) => string): (left: T, right: T) => number {
  return (left, right) => (nameOf(left) < nameOf(right) ? -1 : 1);
}
