/** The rules of a policy document, and what is built into this service. */

import { CLAIM_LIST_LENGTH_MAX } from '@portcullis/guard/limits';
import { isWord, LIST_LENGTH_MAX, WORD_LENGTH_MAX } from '../../common/validation/words.js';
import { ADMIN_ROLE, OWN_AUDIENCE } from '../accounts/roles.js';
import { clientIdFault, DIRECT_CLIENT } from '../clients/client-ids.js';
import type { PolicyClient, PolicyDocument, PolicyRole, PolicyService } from '../records/policy.js';

/** Maximum number of services in a policy. */
export const SERVICES_MAX = 200;

/** Maximum number of scopes of all services. */
export const SCOPES_MAX = 2000;

/** Maximum number of roles in a policy. */
export const ROLES_MAX = 100;

/** Maximum number of clients that serve one audience. */
export const CLIENTS_PER_SERVICE_MAX = 16;

/** Maximum number of clients whose rights a policy names. */
export const CLIENTS_MAX = 1000;

/** Longest description of a service or role, in characters. */
export const DESCRIPTION_CHARACTERS_MAX = 200;

/** Maximum number of faults that one answer lists. */
export const FAULTS_MAX = 50;

/** What is wrong with one field of a document. */
export interface PolicyFault {
  /** Its place, such as `roles[2].scopes[0]`. */
  readonly field: string;
  readonly description: string;
}

/** The service that is always part of the policy, with the scopes of its methods. */
export const OWN_SERVICE: PolicyService = {
  audience: OWN_AUDIENCE,
  description: 'Logins, tokens, revocations and their administration',
  clientIds: [],
  scopes: [
    'auth.clients.write',
    'auth.exchange',
    'auth.introspect',
    'auth.keys.write',
    'auth.policy.read',
    'auth.policy.write',
    'auth.revoke',
    'auth.security.read',
    'auth.self',
    'auth.sync',
    'auth.users.read',
    'auth.users.write',
  ],
};

/** The roles that a document need not name. */
export const OWN_ROLES: readonly PolicyRole[] = [
  {
    role: ADMIN_ROLE,
    description: 'Administers users, clients, keys and the policy',
    scopes: [
      'auth.clients.write',
      'auth.keys.write',
      'auth.policy.read',
      'auth.policy.write',
      'auth.revoke',
      'auth.security.read',
      'auth.self',
      'auth.users.read',
      'auth.users.write',
    ],
  },
  {
    role: 'security',
    description: 'Revokes, and reads security events',
    scopes: ['auth.revoke', 'auth.security.read', 'auth.self', 'auth.users.read'],
  },
];

/**
 * The scopes without which administrators could not undo a change of the policy. That an enabled administrator is left is
 * the concern of LAST_ADMIN.
 */
export const ADMIN_SCOPES = ['auth.policy.read', 'auth.policy.write', 'auth.users.read', 'auth.users.write'];

/** The document with the built-in service and roles that it does not name. */
export function withBuiltIns({ services, roles }: PolicyDocument): PolicyDocument {
  const hasOwn = services.some(({ audience }) => audience === OWN_AUDIENCE);
  const missing = OWN_ROLES.filter((own) => !roles.some(({ role }) => role === own.role));
  return { services: hasOwn ? services : [...services, OWN_SERVICE], roles: [...roles, ...missing] };
}

/** Every fault of a document that can be found without the database, at most {@link FAULTS_MAX}. */
export function faultsOf(
  document: PolicyDocument,
  clients: readonly PolicyClient[] = [],
): readonly PolicyFault[] {
  return [...serviceFaults(document), ...roleFaults(document), ...rightsFaults(clients)].slice(0, FAULTS_MAX);
}

function* serviceFaults({ services }: PolicyDocument): Iterable<PolicyFault> {
  yield* tooMany('services', services.length, SERVICES_MAX);
  const scopes = services.reduce((sum, service) => sum + service.scopes.length, 0);
  if (scopes > SCOPES_MAX) {
    yield { field: 'services', description: `must have at most ${SCOPES_MAX} scopes together` };
  }
  yield* duplicates(services.map(({ audience }, at) => [audience, `services[${at}].audience`]));
  yield* duplicates(
    services.flatMap((service, at) =>
      service.scopes
        .map((scope, index) => [scope, `services[${at}].scopes[${index}]`] as const)
        // Of a reserved scope at another service, only that is the fault.
        .filter(([scope]) => service.audience === OWN_AUDIENCE || !isReserved(scope)),
    ),
  );
  const audiences = new Set(services.map(({ audience }) => audience));
  for (const [at, service] of services.entries()) {
    const place = `services[${at}]`;
    yield* wordFaults(`${place}.audience`, service.audience);
    yield* descriptionFaults(`${place}.description`, service.description);
    yield* clientFaults(`${place}.client_ids`, service.clientIds);
    for (const [index, scope] of service.scopes.entries()) {
      yield* scopeFaults(`${place}.scopes[${index}]`, scope, service.audience, audiences);
    }
    if (service.audience === OWN_AUDIENCE) yield* ownServiceFaults(place, service);
    else if (isReserved(service.audience)) yield reserved(`${place}.audience`);
  }
}

function* scopeFaults(
  field: string,
  scope: string,
  audience: string,
  audiences: ReadonlySet<string>,
): Iterable<PolicyFault> {
  yield* wordFaults(field, scope);
  if (audience === OWN_AUDIENCE) return;
  if (isReserved(scope)) {
    yield reserved(field);
    return;
  }
  const [first = ''] = scope.split('.', 1);
  if (first !== audience && audiences.has(first)) {
    yield { field, description: `must not be named like a scope of ${first}: got ${scope}` };
  }
}

/** The own service is what this version of auth has, so a document may only repeat it. */
function* ownServiceFaults(place: string, { scopes, clientIds }: PolicyService): Iterable<PolicyFault> {
  const missing = OWN_SERVICE.scopes.filter((scope) => !scopes.includes(scope));
  const added = scopes.filter((scope) => !OWN_SERVICE.scopes.includes(scope));
  if (missing.length > 0) {
    yield {
      field: `${place}.scopes`,
      description: `is built in: must have ${missing.join(', ')}, or the service be left out`,
    };
  }
  if (added.length > 0) {
    yield { field: `${place}.scopes`, description: `is built in: must not have ${added.join(', ')}` };
  }
  if (clientIds.length > 0) {
    yield { field: `${place}.client_ids`, description: 'must be empty: no client serves auth' };
  }
}

function* clientFaults(field: string, clientIds: readonly string[]): Iterable<PolicyFault> {
  yield* tooMany(field, clientIds.length, CLIENTS_PER_SERVICE_MAX);
  yield* duplicates(clientIds.map((clientId, index) => [clientId, `${field}[${index}]`]));
  for (const [index, clientId] of clientIds.entries()) {
    const description = clientIdFault(clientId);
    if (description !== undefined) yield { field: `${field}[${index}]`, description };
  }
}

function* roleFaults({ services, roles }: PolicyDocument): Iterable<PolicyFault> {
  const known = new Set(services.flatMap(({ scopes }) => scopes));
  yield* tooMany('roles', roles.length, ROLES_MAX);
  yield* duplicates(roles.map(({ role }, at) => [role, `roles[${at}].role`]));
  for (const [at, { role, description, scopes }] of roles.entries()) {
    const place = `roles[${at}]`;
    yield* wordFaults(`${place}.role`, role);
    yield* descriptionFaults(`${place}.description`, description);
    // More than this does not fit into a token.
    yield* tooMany(`${place}.scopes`, scopes.length, CLAIM_LIST_LENGTH_MAX);
    yield* duplicates(scopes.map((scope, index) => [scope, `${place}.scopes[${index}]`]));
    for (const [index, scope] of scopes.entries()) {
      if (known.has(scope)) continue;
      yield { field: `${place}.scopes[${index}]`, description: `no service has the scope ${quoted(scope)}` };
    }
    if (role !== ADMIN_ROLE) continue;
    const missing = ADMIN_SCOPES.filter((scope) => !scopes.includes(scope));
    if (missing.length > 0) {
      const why = 'without them no administrator could undo the change';
      yield { field: `${place}.scopes`, description: `must have ${missing.join(', ')}: ${why}` };
    }
  }
}

function* rightsFaults(clients: readonly PolicyClient[]): Iterable<PolicyFault> {
  yield* tooMany('clients', clients.length, CLIENTS_MAX);
  yield* duplicates(clients.map(({ clientId }, at) => [clientId, `clients[${at}].client_id`]));
  for (const [at, { clientId, ...rights }] of clients.entries()) {
    const place = `clients[${at}]`;
    const description =
      clientId === DIRECT_CLIENT
        ? `must not be ${DIRECT_CLIENT}: what logins grant is decided by the roles`
        : clientIdFault(clientId);
    if (description !== undefined) yield { field: `${place}.client_id`, description };
    yield* wordsFaults(`${place}.audiences`, rights.audiences);
    yield* wordsFaults(`${place}.scopes`, rights.scopes);
    yield* wordsFaults(`${place}.exchange_audiences`, rights.exchangeAudiences);
    yield* wordsFaults(`${place}.exchange_scopes`, rights.exchangeScopes);
  }
}

function* wordsFaults(field: string, words: readonly string[]): Iterable<PolicyFault> {
  yield* tooMany(field, words.length, LIST_LENGTH_MAX);
  yield* duplicates(words.map((word, index) => [word, `${field}[${index}]`]));
  for (const [index, word] of words.entries()) yield* wordFaults(`${field}[${index}]`, word);
}

/** Whether only the own service may have this name or scope. */
export function isReserved(word: string): boolean {
  return word === OWN_AUDIENCE || word.startsWith(`${OWN_AUDIENCE}.`);
}

function reserved(field: string): PolicyFault {
  return {
    field,
    description: `must not be ${OWN_AUDIENCE} or begin with ${OWN_AUDIENCE}., which is reserved`,
  };
}

function* wordFaults(field: string, word: string): Iterable<PolicyFault> {
  if (isWord(word)) return;
  const description = `must be 1 to ${WORD_LENGTH_MAX} lower-case letters, digits, dots, underscores and hyphens`;
  yield { field, description };
}

function* descriptionFaults(field: string, text: string): Iterable<PolicyFault> {
  if ([...text].length <= DESCRIPTION_CHARACTERS_MAX && !/\p{Cc}|\p{Cs}/u.test(text)) return;
  const description = `must have at most ${DESCRIPTION_CHARACTERS_MAX} characters, and no control characters`;
  yield { field, description };
}

function* tooMany(field: string, count: number, max: number): Iterable<PolicyFault> {
  if (count > max) yield { field, description: `must have at most ${max} members` };
}

function* duplicates(words: Iterable<readonly [word: string, field: string]>): Iterable<PolicyFault> {
  const places = new Map<string, string>();
  for (const [word, field] of words) {
    const first = places.get(word);
    if (first === undefined) places.set(word, field);
    else yield { field, description: `must not repeat ${first}: ${quoted(word)}` };
  }
}

/** A word of a document in a message; what is no word may be of any length. */
function quoted(word: string): string {
  return JSON.stringify(word.slice(0, WORD_LENGTH_MAX));
}
