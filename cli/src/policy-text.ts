/** The policy as YAML, to be kept in git: the same names as in the schema and in the bootstrap file. */

import { type Described, shapeFaults, yamlFault } from '@portcullis/gate/faults';
import { type Document, parseDocument, stringify } from 'yaml';
import { z } from 'zod';
import type { ClientPolicy, Policy, PolicyChange } from '../gen/auth/v1/policy_service.js';
import { ClientRight, PolicyChangeKind } from '../gen/auth/v1/policy_service.js';
import { CommandError, EXIT } from './failures.js';

/** Maximum length of a policy file, in characters: more than 200 services and 100 roles at their limits need. */
const POLICY_LENGTH_MAX = 4 * 1024 * 1024;

const words = z.array(z.string()).default([]);

const SERVICE = {
  audience: z.string(),
  description: z.string().default(''),
  client_ids: words,
  scopes: words,
};
const ROLE = { role: z.string(), description: z.string().default(''), scopes: words };
const CLIENT = {
  client_id: z.string(),
  audiences: words,
  scopes: words,
  exchange_audiences: words,
  exchange_scopes: words,
};
const POLICY = {
  services: z.array(z.strictObject(SERVICE)).default([]),
  roles: z.array(z.strictObject(ROLE)).default([]),
  clients: z.array(z.strictObject(CLIENT)).default([]),
};
const policySchema = z.strictObject(POLICY);

/** The names in a policy, by the table that has them. */
const NAMES: Readonly<Record<string, { readonly noun: string; readonly names: readonly string[] }>> = {
  '': { noun: 'part of a policy', names: Object.keys(POLICY) },
  services: { noun: 'member of a service', names: Object.keys(SERVICE) },
  roles: { noun: 'member of a role', names: Object.keys(ROLE) },
  clients: { noun: 'member of a client', names: Object.keys(CLIENT) },
};

const DESCRIBED: Described = { knownAt: (place) => NAMES[String(place[0] ?? '')] };

const HEAD = `# The policy of Portcullis: services with their scopes, roles with the scopes that they grant, and what clients may ask for.
# A client that is left out keeps what it has. exchange_scopes: [] is every scope that the user's token has.
# portcullis policy plan FILE shows what a change would do, portcullis policy apply FILE makes it.
`;

/** The text of a policy. */
export function formatPolicy({ services, roles, clients }: Policy): string {
  const document = {
    services: services.map(({ audience, description, clientIds, scopes }) => ({
      audience,
      ...(description !== '' && { description }),
      ...(clientIds.length > 0 && { client_ids: clientIds }),
      scopes,
    })),
    roles: roles.map(({ role, description, scopes }) => ({
      role,
      ...(description !== '' && { description }),
      scopes,
    })),
    ...(clients.length > 0 && { clients: clients.map(formatClient) }),
  };
  return HEAD + stringify(document, { lineWidth: 0 });
}

function formatClient({ clientId, audiences, scopes, exchangeAudiences, exchangeScopes }: ClientPolicy) {
  return {
    client_id: clientId,
    ...(audiences.length > 0 && { audiences }),
    ...(scopes.length > 0 && { scopes }),
    ...(exchangeAudiences.length > 0 && { exchange_audiences: exchangeAudiences }),
    ...(exchangeScopes.length > 0 && { exchange_scopes: exchangeScopes }),
  };
}

/**
 * Reads a policy file. JSON is YAML, too.
 *
 * @throws CommandError with every fault and its place
 */
export function parsePolicy(text: string, name: string): Pick<Policy, 'services' | 'roles' | 'clients'> {
  if (text.length > POLICY_LENGTH_MAX)
    throw new CommandError(`${name} is too long.`, { exitCode: EXIT.usage });
  const document = parseDocument(text, { uniqueKeys: true });
  if (document.errors.length > 0) {
    throw new CommandError(
      document.errors.map((fault) => `${name} has a fault ${yamlFault(fault)}`).join('\n'),
      { exitCode: EXIT.usage },
    );
  }
  const value = plainValueOf(document, name) ?? {};
  const parsed = policySchema.safeParse(value);
  if (!parsed.success) {
    const faults = shapeFaults(parsed.error, value, DESCRIBED).map((fault) => `${name}: ${fault}`);
    throw new CommandError(faults.join('\n'), { exitCode: EXIT.usage });
  }
  const { services, roles, clients } = parsed.data;
  return {
    services: services.map(({ client_ids: clientIds, ...service }) => ({ ...service, clientIds })),
    roles,
    clients: clients.map((client) => ({
      clientId: client.client_id,
      audiences: client.audiences,
      scopes: client.scopes,
      exchangeAudiences: client.exchange_audiences,
      exchangeScopes: client.exchange_scopes,
    })),
  };
}

/** Aliases are refused: a small file with aliases can stand for a huge one. */
function plainValueOf(document: Document, name: string): unknown {
  try {
    return document.toJS({ maxAliasCount: 0 });
  } catch (cause) {
    throw new CommandError(`${name} uses aliases (*), which a policy must not.`, {
      exitCode: EXIT.usage,
      cause,
    });
  }
}

/** The differences of two policies, a line each. */
export function describeChanges(changes: readonly PolicyChange[]): string {
  return changes.map(describeChange).join('\n');
}

function describeChange({ kind, audience, role, scope, clientId, right }: PolicyChange): string {
  const sign = SIGNS[kind as keyof typeof SIGNS] ?? '?';
  if (right !== ClientRight.CLIENT_RIGHT_UNSPECIFIED) {
    const what = RIGHTS[right as keyof typeof RIGHTS] ?? 'another right';
    return `${sign} client ${clientId}: ${what} ${audience || scope || '(every one of the user)'}`;
  }
  const what = role === '' ? `service ${audience}` : `role ${role}`;
  if (scope !== '') return `${sign} ${what}: scope ${scope}`;
  if (clientId !== '') return `${sign} ${what}: client ${clientId}`;
  return kind === PolicyChangeKind.POLICY_CHANGE_KIND_DESCRIBED
    ? `${sign} ${what}: description`
    : `${sign} ${what}`;
}

const RIGHTS = {
  [ClientRight.CLIENT_RIGHT_AUDIENCE]: 'audience',
  [ClientRight.CLIENT_RIGHT_SCOPE]: 'scope',
  [ClientRight.CLIENT_RIGHT_EXCHANGE_AUDIENCE]: 'exchange audience',
  [ClientRight.CLIENT_RIGHT_EXCHANGE_SCOPE]: 'exchange scope',
} as const;

const SIGNS = {
  [PolicyChangeKind.POLICY_CHANGE_KIND_ADDED]: '+',
  [PolicyChangeKind.POLICY_CHANGE_KIND_REMOVED]: '-',
  [PolicyChangeKind.POLICY_CHANGE_KIND_DESCRIBED]: '~',
} as const;
