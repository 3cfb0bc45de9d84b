/** The access rule of a method: read once from the schema, checked on every call. */

import { Caller, OnStale, type Rule } from '../../gen/portcullis/access/v1/access.js';
import { GuardError, type GuardErrorCode, type ServiceError } from '../errors.js';
import type { Principal } from '../token/principal.js';
import type { GuardLimits } from './guard-limits.js';

/** The part of ts-proto's `protoMetadata` that contains the method options. */
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

/** The access rule of a method, in the form in which it is checked. */
export interface AccessRule {
  /** No token is needed. */
  readonly isPublic: boolean;
  /** The caller needs all of these scopes. */
  readonly scopes: readonly string[];
  /** The caller needs one of these roles; none when empty. */
  readonly roles: readonly string[];
  /** The kind of principal that may call. */
  readonly caller: 'ANY' | 'USER' | 'SERVICE';
  /** Maximum time since the last login, in seconds; undefined: any. */
  readonly maxAuthAgeSeconds: number | undefined;
  /** While the revocation list is stale, calls are admitted by what it contains. */
  readonly allowStale: boolean;
  /** Maximum size of a request message, in bytes. `Infinity` until the guard has set its limits. */
  readonly requestBytesMax: number;
}

/** The rule of methods that need no token. */
export const PUBLIC_RULE: AccessRule = {
  isPublic: true,
  scopes: [],
  roles: [],
  caller: 'ANY',
  maxAuthAgeSeconds: undefined,
  allowStale: true,
  requestBytesMax: Number.POSITIVE_INFINITY,
};

/**
 * Adds the rules of methods to those that a guard has, with the maximum sizes that apply. Several servers of one guard may
 * have the same service.
 *
 * @throws TypeError naming every method that has another rule already: the order of the calls would decide which one holds
 */
export function addRules(
  known: Map<string, AccessRule>,
  rules: ReadonlyMap<string, AccessRule>,
  limits: GuardLimits,
): void {
  const added = [...rules].map(([path, rule]) => [path, withRequestBytes(rule, limits)] as const);
  const contradicted = added.filter(([path, rule]) => !isSame(known.get(path) ?? rule, rule));
  if (contradicted.length > 0) {
    const paths = contradicted.map(([path]) => path).join(', ');
    throw new TypeError(`${paths} was added to this guard before, with another rule`);
  }
  for (const [path, rule] of added) known.set(path, rule);
}

function isSame(left: AccessRule, right: AccessRule): boolean {
  const textOf = ({ requestBytesMax, ...rule }: AccessRule): string =>
    JSON.stringify([rule, String(requestBytesMax)]);
  return textOf(left) === textOf(right);
}

/** The rule with the maximum size of a request message that applies: the smaller of its own and the guard's. */
export function withRequestBytes(rule: AccessRule, limits: GuardLimits): AccessRule {
  const max = rule.isPublic ? limits.publicRequestBytes : limits.requestBytes;
  // A public method may declare more than the small default.
  const requestBytesMax = Number.isFinite(rule.requestBytesMax)
    ? Math.min(rule.requestBytesMax, limits.requestBytes)
    : max;
  return { ...rule, requestBytesMax };
}

/** Why a principal does not meet a rule; undefined when it does. */
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

/** Creates the error for a violation. Its message names the rule, which the schema publishes anyway. */
export function describeViolation(code: GuardErrorCode, rule: AccessRule): ServiceError<GuardErrorCode> {
  switch (code) {
    case 'SCOPE_MISSING':
      return new GuardError(code, `this method requires scope ${rule.scopes.join(' and ')}`);
    case 'ROLE_MISSING':
      return new GuardError(
        code,
        `this method requires role ${rule.roles.join(' or ')}; a token with narrowed scopes may lack a role of its user`,
      );
    case 'CALLER_KIND':
      return new GuardError(code, `this method is for ${rule.caller === 'USER' ? 'users' : 'services'}`);
    default:
      return new GuardError(
        code,
        `this method requires a login within the last ${rule.maxAuthAgeSeconds ?? 0} seconds`,
      );
  }
}

const CALLERS: ReadonlyMap<Caller, AccessRule['caller']> = new Map([
  [Caller.CALLER_UNSPECIFIED, 'ANY'],
  [Caller.CALLER_USER, 'USER'],
  [Caller.CALLER_SERVICE, 'SERVICE'],
]);

/** The rule in the form in which it is checked, or what is wrong with it. */
export function ruleOf(declared: Rule): AccessRule | string {
  const caller = CALLERS.get(declared.caller);
  if (caller === undefined) return 'has a rule of a newer version: its caller is not known';
  if (declared.onStale < 0 || declared.onStale > OnStale.ON_STALE_ALLOW) {
    return 'has a rule of a newer version: its on_stale is not known';
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
    requestBytesMax: declared.maxRequestBytes || Number.POSITIVE_INFINITY,
  };
  if (!rule.isPublic) return rule;
  const conditions =
    rule.scopes.length > 0 ||
    rule.roles.length > 0 ||
    declared.caller !== Caller.CALLER_UNSPECIFIED ||
    rule.maxAuthAgeSeconds !== undefined ||
    declared.onStale !== OnStale.ON_STALE_UNSPECIFIED;
  return conditions
    ? 'is public and has other conditions: declare one or the other'
    : { ...PUBLIC_RULE, requestBytesMax: rule.requestBytesMax };
}
