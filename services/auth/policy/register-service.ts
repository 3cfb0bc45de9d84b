/** RegisterService: a service joins the policy with the scopes that the rules of its methods require. */

import { createHash } from 'node:crypto';
import { type FieldViolation, invalidField } from '@portcullis/guard/errors';
import { isWord, LIST_LENGTH_MAX, WORD_LENGTH_MAX } from '../../common/validation/words.js';
import { OWN_AUDIENCE, requireKnownRoles } from '../accounts/roles.js';
import { AuthError } from '../errors.js';
import type { Policy, PolicyDocument, PolicyService } from '../records/policy.js';
import { type AppliedPolicy, changePolicy, type PolicyDeps, type PolicyRequest } from './apply-policy.js';
import { isReserved } from './document.js';

/** Maximum number of faults of a descriptor set that one answer lists. */
const FAULTS_MAX = 50;

/** A method of a descriptor set, and what its access rule requires. */
export interface DeclaredMethod {
  /** `/package.Service/Method`. */
  readonly path: string;
  /** Undefined when the method has none, or one with a fault. */
  readonly rule:
    | {
        readonly scopes: readonly string[];
        readonly roles: readonly string[];
        readonly caller: 'ANY' | 'USER' | 'SERVICE';
      }
    | undefined;
  /** What is wrong with the rule; undefined when it is valid or missing. */
  readonly fault: string | undefined;
}

/** The collaborators of the registration. */
export interface RegistrationDeps extends PolicyDeps {
  /**
   * Reads the methods of a descriptor set.
   *
   * @throws ServiceError FIELD_INVALID when it is too large or not a descriptor set
   */
  readonly methodsOf: (field: string, descriptorSet: Uint8Array) => readonly DeclaredMethod[];
}

/** A request to add a service, or to replace its scopes. */
export interface ServiceRegistration extends PolicyRequest {
  readonly audience: string;
  /** Of a known service, empty keeps the former one. */
  readonly description: string;
  /** Of a known service, none keeps the former ones. */
  readonly clientIds: readonly string[];
  readonly descriptorSet: Uint8Array;
  /** The roles that get every scope of the methods that users may call. */
  readonly roles: readonly string[];
}

/** The service as the policy has it, and what else has changed. */
export interface RegisteredService extends AppliedPolicy {
  readonly service: PolicyService;
}

/**
 * Registers a service. A scope that the descriptor set does not have any more leaves the service and all roles.
 *
 * @throws ServiceError as {@link changePolicy}
 */
export async function registerService(
  deps: RegistrationDeps,
  request: ServiceRegistration,
): Promise<RegisteredService> {
  const { audience, description, clientIds, descriptorSet, roles } = request;
  requireAudience(audience);
  if (roles.length > LIST_LENGTH_MAX) {
    throw invalidField('roles', `must have at most ${LIST_LENGTH_MAX} members`);
  }
  const methods = deps.methodsOf('descriptor_set', descriptorSet);
  const digest = createHash('sha256').update(descriptorSet).digest('base64');
  const applied = await changePolicy(deps, request, {
    method: 'RegisterService',
    payload: [audience, description, clientIds, roles, digest],
    field: 'policy',
    edit: (before) => {
      requireKnownRoles(before, roles);
      return withService(before, request, scopesOf(before, audience, methods));
    },
  });
  const service = applied.policy.services.find((one) => one.audience === audience);
  if (service === undefined) throw new TypeError('the policy lacks the service that was registered');
  return { ...applied, service };
}

function requireAudience(audience: string): void {
  if (!isWord(audience)) {
    const rule = `must be 1 to ${WORD_LENGTH_MAX} lower-case letters, digits, dots, underscores and hyphens`;
    throw invalidField('audience', rule);
  }
  if (isReserved(audience)) {
    throw invalidField('audience', `must not be ${OWN_AUDIENCE} or begin with ${OWN_AUDIENCE}.`);
  }
}

function withService(
  before: Policy,
  { audience, description, clientIds, roles }: ServiceRegistration,
  scopes: ServiceScopes,
): PolicyDocument {
  const former = before.services.find((service) => service.audience === audience);
  const service: PolicyService = {
    audience,
    description: description || (former?.description ?? ''),
    clientIds: clientIds.length === 0 ? (former?.clientIds ?? []) : clientIds,
    scopes: scopes.all,
  };
  const lost = new Set(former?.scopes.filter((scope) => !scopes.all.includes(scope)));
  return {
    services: [...before.services.filter((one) => one !== former), service],
    roles: before.roles.map((role) => {
      const gained = roles.includes(role.role) ? scopes.ofUsers : [];
      const kept = role.scopes.filter((scope) => !lost.has(scope));
      return { ...role, scopes: [...new Set([...kept, ...gained])] };
    }),
  };
}

interface ServiceScopes {
  readonly all: readonly string[];
  /** The scopes of the methods that users may call. */
  readonly ofUsers: readonly string[];
}

/**
 * The scopes of the service: those that its methods require, without the scopes of other services that they require, too.
 *
 * @throws ServiceError FIELD_INVALID with every fault of the set
 */
function scopesOf(before: Policy, audience: string, methods: readonly DeclaredMethod[]): ServiceScopes {
  const all = new Set<string>();
  const ofUsers = new Set<string>();
  const problems: string[] = methods.length === 0 ? ['has no service'] : [];
  for (const { path, rule, fault } of methods) {
    if (rule === undefined) {
      problems.push(`${path} ${fault ?? 'declares no access rule'}`);
      continue;
    }
    const own = rule.scopes.filter((scope) => ownerOf(before, audience, scope) === audience);
    problems.push(...problemsOf(before, rule, own).map((problem) => `${path} ${problem}`));
    for (const scope of own) {
      all.add(scope);
      if (rule.caller !== 'SERVICE') ofUsers.add(scope);
    }
  }
  if (problems.length === 0 && all.size === 0) {
    problems.push('has no method that requires a scope of the service: no user could get a token for it');
  }
  if (problems.length > 0) throw invalidSet(problems);
  return { all: [...all].sort(), ofUsers: [...ofUsers].sort() };
}

/** The service to which a scope belongs: by the policy, by its name, and else the one that is being registered. */
function ownerOf({ services, audienceOfScope }: Policy, audience: string, scope: string): string {
  const registered = audienceOfScope.get(scope);
  if (registered !== undefined) return registered;
  const [first = ''] = scope.split('.', 1);
  return services.some((service) => service.audience === first) ? first : audience;
}

function problemsOf(
  { audienceOfScope, scopesOfRole, services }: Policy,
  { scopes, roles }: NonNullable<DeclaredMethod['rule']>,
  own: readonly string[],
): readonly string[] {
  const foreign = scopes.filter((scope) => !own.includes(scope));
  const nameOf = (scope: string) =>
    audienceOfScope.get(scope) ??
    services.find(({ audience }) => scope.startsWith(`${audience}.`))?.audience ??
    '';
  return [
    ...own
      .filter((scope) => !isWord(scope))
      .map((scope) => `requires ${quoted(scope)}, which cannot be a scope`),
    ...foreign
      .filter((scope) => !audienceOfScope.has(scope))
      .map((scope) => `requires ${quoted(scope)}, which ${nameOf(scope)} does not have`),
    // Otherwise any token of the other service with this scope would do here.
    ...(foreign.length > 0 && own.length === 0
      ? [
          `requires only scopes of other services: ${foreign.map((s) => `${s} belongs to ${nameOf(s)}`).join(', ')}`,
        ]
      : []),
    ...roles
      .filter((role) => !scopesOfRole.has(role))
      .map((role) => `requires role ${quoted(role)}, which the policy does not have`),
  ];
}

/** A word of a descriptor set in a message; it may be of any length. */
function quoted(word: string): string {
  return JSON.stringify(word.slice(0, WORD_LENGTH_MAX));
}

function invalidSet(problems: readonly string[]): Error {
  const violations: readonly FieldViolation[] = problems
    .slice(0, FAULTS_MAX)
    .map((description) => ({ field: 'descriptor_set', description }));
  const [first = ''] = problems;
  const more = problems.length > 1 ? `, and ${problems.length - 1} more` : '';
  return new AuthError('FIELD_INVALID', `descriptor_set: ${first}${more}`, { violations });
}
