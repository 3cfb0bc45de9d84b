/** The access rule of a method: read once from the schema, then asked on every call. */

import type { ServiceDefinition } from '@grpc/grpc-js';
import { Caller, OnStale, type Rule } from '../../gen/portcullis/access/v1/access.js';
import { GuardError, type GuardErrorCode, type ServiceError } from '../errors.js';
import type { Principal } from '../token/principal.js';

/** The part of ts-proto's `protoMetadata` in which method options stand. */
export interface SchemaMetadata {
  readonly options?:
    | {
        readonly services?:
          | {
              readonly [service: string]: {
                readonly methods?: { readonly [method: string]: { readonly [option: string]: unknown } };
              };
            }
          | undefined;
      }
    | undefined;
}

/** A method's rule, in the form in which it is asked. */
export interface AccessRule {
  /** Anyone may call, without a token. */
  readonly isPublic: boolean;
  /** Scopes needed, all of them. */
  readonly scopes: readonly string[];
  /** Roles of which one is needed; none when empty. */
  readonly roles: readonly string[];
  /** The kind of caller admitted. */
  readonly caller: 'ANY' | 'USER' | 'SERVICE';
  /** Longest time since the last login, in seconds. */
  readonly maxAuthAgeSeconds: number | undefined;
  /** Admit on what is known while the revocation list is stale. */
  readonly allowStale: boolean;
}

/** The rule of methods that anyone may call. */
export const PUBLIC_RULE: AccessRule = {
  isPublic: true,
  scopes: [],
  roles: [],
  caller: 'ANY',
  maxAuthAgeSeconds: undefined,
  allowStale: true,
};

/**
 * Reads the rules of all methods of a service.
 *
 * @returns the rule of each method by its full path
 * @throws TypeError naming every method that has no rule, or one that contradicts itself: a server
 *   without a complete table must not start
 */
export function readRules(definition: ServiceDefinition, schema: SchemaMetadata): Map<string, AccessRule> {
  const rules = new Map<string, AccessRule>();
  const faults: string[] = [];
  for (const { path } of Object.values(definition)) {
    // The definition lists every method; the schema's metadata only those that have options.
    const [service = '', method = ''] = path.slice(1).split('/');
    const options = schema.options?.services?.[service.slice(service.lastIndexOf('.') + 1)]?.methods;
    const declared = options && Object.hasOwn(options, method) ? options[method]?.['rule'] : undefined;
    if (declared === undefined) {
      faults.push(`${path} declares no access rule`);
      continue;
    }
    const rule = ruleOf(declared as Rule);
    if (typeof rule === 'string') faults.push(`${path} ${rule}`);
    else rules.set(path, rule);
  }
  if (faults.length > 0) throw new TypeError(faults.join('; '));
  return rules;
}

/** Says why a principal does not meet a rule; undefined when it does. */
export function violationOf(
  rule: AccessRule,
  principal: Principal,
  wallSeconds: number,
): GuardErrorCode | undefined {
  for (const scope of rule.scopes) if (!principal.scopes.has(scope)) return 'SCOPE_MISSING';
  if (rule.roles.length > 0 && !rule.roles.some((role) => principal.roles.has(role))) return 'ROLE_MISSING';
  if (rule.caller !== 'ANY' && rule.caller !== principal.kind) return 'CALLER_KIND';
  if (
    rule.maxAuthAgeSeconds !== undefined &&
    !(wallSeconds - (principal.authTimeSeconds ?? Number.NEGATIVE_INFINITY) <= rule.maxAuthAgeSeconds)
  ) {
    return 'LOGIN_TOO_OLD';
  }
  return undefined;
}

/** The sentence sent with each way not to meet a rule. It names what the schema publishes anyway. */
export function describeViolation(code: GuardErrorCode, rule: AccessRule): ServiceError<GuardErrorCode> {
  switch (code) {
    case 'SCOPE_MISSING':
      return new GuardError(code, `this method needs scope ${rule.scopes.join(' and ')}`);
    case 'ROLE_MISSING':
      return new GuardError(code, `this method needs role ${rule.roles.join(' or ')}`);
    case 'CALLER_KIND':
      return new GuardError(code, `this method is for ${rule.caller === 'USER' ? 'users' : 'services'}`);
    default:
      return new GuardError(code, `this method needs a login within ${rule.maxAuthAgeSeconds ?? 0} seconds`);
  }
}

function ruleOf(declared: Rule): AccessRule | string {
  const caller = callerOf(declared.caller);
  if (caller === undefined) return 'names a kind of caller that this version does not know';
  if (declared.onStale < 0 || declared.onStale > OnStale.ON_STALE_ALLOW) {
    return 'names an on_stale that this version does not know';
  }
  const maxAuthAge = declared.maxAuthAge;
  const rule: AccessRule = {
    isPublic: declared.public,
    scopes: declared.scopes,
    roles: declared.roles,
    caller,
    maxAuthAgeSeconds:
      maxAuthAge === undefined ? undefined : Number(maxAuthAge.seconds) + maxAuthAge.nanos / 1e9,
    allowStale: declared.onStale === OnStale.ON_STALE_ALLOW,
  };
  if (!rule.isPublic) return rule;
  const conditions =
    rule.scopes.length > 0 ||
    rule.roles.length > 0 ||
    declared.caller !== Caller.CALLER_UNSPECIFIED ||
    rule.maxAuthAgeSeconds !== undefined ||
    declared.onStale !== OnStale.ON_STALE_UNSPECIFIED;
  return conditions ? 'is public and has conditions: it must be one or the other' : PUBLIC_RULE;
}

function callerOf(caller: Caller): AccessRule['caller'] | undefined {
  switch (caller) {
    case Caller.CALLER_UNSPECIFIED:
      return 'ANY';
    case Caller.CALLER_USER:
      return 'USER';
    case Caller.CALLER_SERVICE:
      return 'SERVICE';
    default:
      return undefined;
  }
}
