/** The differences between two policies. */

import { OWN_AUDIENCE } from '../accounts/roles.js';
import type { PolicyClient, PolicyDocument } from '../records/policy.js';

/** A right of a client: an audience or a scope of its own tokens, or of those with which it acts for a user. */
type ClientRight = 'AUDIENCE' | 'SCOPE' | 'EXCHANGE_AUDIENCE' | 'EXCHANGE_SCOPE';

/**
 * One difference: of a service or a role, of one of its scopes, of a client that serves an audience, or of a right of a
 * client.
 */
export interface PolicyChange {
  readonly kind: 'ADDED' | 'REMOVED' | 'DESCRIBED';
  readonly audience?: string;
  readonly role?: string;
  readonly scope?: string;
  readonly clientId?: string;
  /** The right of the client that the audience or the scope is; EXCHANGE_SCOPE without a scope: every scope. */
  readonly right?: ClientRight;
}

/** What roles have lost. */
export interface LostRights {
  /** The scopes that one role or another does not grant any more. */
  readonly scopes: readonly string[];
  /** Their services, without the own one, which every user may reach. */
  readonly audiences: readonly string[];
}

/** Every difference, services first. */
export function differencesBetween(before: PolicyDocument, after: PolicyDocument): readonly PolicyChange[] {
  return [
    ...differences(namedServices(before), namedServices(after)),
    ...differences(namedRoles(before), namedRoles(after)),
  ];
}

/** The rights that clients get and lose. Both lists are of the same clients. */
export function clientDifferences(
  before: readonly PolicyClient[],
  after: readonly PolicyClient[],
): readonly PolicyChange[] {
  return [...differences(namedClients(before), namedClients(after))];
}

/** A service or a role, with the lists in which two of them can differ. */
interface Named {
  readonly name: Pick<PolicyChange, 'audience' | 'role' | 'clientId'>;
  readonly description: string;
  readonly members: readonly Pick<PolicyChange, 'audience' | 'scope' | 'clientId' | 'right'>[];
}

function namedServices({ services }: PolicyDocument): ReadonlyMap<string, Named> {
  return new Map(
    services.map(({ audience, description, scopes, clientIds }) => {
      const members = [...scopes.map((scope) => ({ scope })), ...clientIds.map((clientId) => ({ clientId }))];
      return [audience, { name: { audience }, description, members }];
    }),
  );
}

function namedRoles({ roles }: PolicyDocument): ReadonlyMap<string, Named> {
  return new Map(
    roles.map(({ role, description, scopes }) => [
      role,
      { name: { role }, description, members: scopes.map((scope) => ({ scope })) },
    ]),
  );
}

function namedClients(clients: readonly PolicyClient[]): ReadonlyMap<string, Named> {
  return new Map(
    clients.map((client) => {
      const { clientId } = client;
      return [clientId, { name: { clientId }, description: '', members: rightsOf(client) }];
    }),
  );
}

function rightsOf({ audiences, scopes, exchangeAudiences, exchangeScopes }: PolicyClient): Named['members'] {
  return [
    ...audiences.map((audience) => ({ right: 'AUDIENCE' as const, audience })),
    ...scopes.map((scope) => ({ right: 'SCOPE' as const, scope })),
    ...exchangeAudiences.map((audience) => ({ right: 'EXCHANGE_AUDIENCE' as const, audience })),
    ...(exchangeScopes.length === 0 ? [{ right: 'EXCHANGE_SCOPE' as const }] : []),
    ...exchangeScopes.map((scope) => ({ right: 'EXCHANGE_SCOPE' as const, scope })),
  ];
}

function* differences(
  before: ReadonlyMap<string, Named>,
  after: ReadonlyMap<string, Named>,
): Iterable<PolicyChange> {
  for (const key of [...new Set([...before.keys(), ...after.keys()])].sort()) {
    const [former, present] = [before.get(key), after.get(key)];
    const name = (present ?? former)?.name ?? {};
    if (former === undefined) yield { kind: 'ADDED', ...name };
    if (present === undefined) yield { kind: 'REMOVED', ...name };
    if (former && present && former.description !== present.description) yield { kind: 'DESCRIBED', ...name };
    for (const member of missingIn(former, present)) yield { kind: 'ADDED', ...name, ...member };
    for (const member of missingIn(present, former)) yield { kind: 'REMOVED', ...name, ...member };
  }
}

/** The members of the second that the first does not have. */
function missingIn(first: Named | undefined, second: Named | undefined): Named['members'] {
  const has = new Set(first?.members.map(keyOf));
  return (second?.members ?? []).filter((member) => !has.has(keyOf(member)));
}

function keyOf({ audience, scope, clientId, right }: Named['members'][number]): string {
  return JSON.stringify([audience, scope, clientId, right]);
}

/** What users may lose with these changes. Another role may still grant it to a user. */
export function lostRights(changes: readonly PolicyChange[], before: PolicyDocument): LostRights {
  const scopes = changes.flatMap(({ kind, role, scope }) =>
    kind === 'REMOVED' && role !== undefined && scope !== undefined ? [scope] : [],
  );
  const lost = new Set(scopes);
  const audiences = before.services
    .filter((service) => service.audience !== OWN_AUDIENCE && service.scopes.some((scope) => lost.has(scope)))
    .map(({ audience }) => audience);
  return { scopes: [...lost].sort(), audiences };
}

/** A change in a few words, such as `role customer: scope payment.pay removed`. */
export function changeText({ kind, audience, role, scope, clientId, right }: PolicyChange): string {
  if (right !== undefined) {
    const what = right.toLowerCase().replace('_', ' ');
    return `client ${clientId ?? ''}: ${what} ${audience ?? scope ?? '(every one)'} ${kind.toLowerCase()}`;
  }
  const whose = role === undefined ? `service ${audience ?? ''}` : `role ${role}`;
  const what = scope === undefined ? clientId && `: client ${clientId}` : `: scope ${scope}`;
  return `${whose}${what ?? ''} ${kind.toLowerCase()}`;
}
