/** Where access rules come from: generated code, a table in code, or what a descriptor set declares. */

import type { ServiceDefinition } from '@grpc/grpc-js';
import { Caller, OnStale, Rule } from '../../gen/portcullis/access/v1/access.js';
import { type AccessRule, ruleOf, type SchemaMetadata } from './access-rule.js';
import type { MethodKind } from './decision.js';

/** The rule of a method, written in code. All conditions that are set must hold; `{}` admits any authenticated caller. */
export type CodeRule =
  | 'public'
  | {
      /** Scopes that the caller must have, all of them. */
      readonly scopes?: string | readonly string[];
      /** Roles of which the caller must have at least one. */
      readonly roles?: string | readonly string[];
      /** The kind of caller admitted. Default: any. */
      readonly caller?: 'USER' | 'SERVICE';
      /** Maximum time since the user's last login, in seconds. */
      readonly maxAuthAgeSeconds?: number;
      /** While the revocation list is stale, admit calls by what it contains. Default: false. */
      readonly allowStale?: boolean;
      /** Maximum size of a request message, in bytes. Default: the guard's limit. */
      readonly maxRequestBytes?: number;
    };

/** A rule for every method of a service; one that is forgotten does not compile. */
export type CodeRules<Definition extends ServiceDefinition> = {
  readonly [Method in keyof Definition]: CodeRule;
};

/** The members of a Rule in generated code that this version knows. */
const RULE_MEMBERS: ReadonlySet<string> = new Set(Object.keys(Rule.fromPartial({})));

/** What is wrong with a method that a schema has twice: with different rules, one of them would be lost. */
export const TWICE = 'is declared twice';

/** Access rules by the full path of the method. */
export class AccessRules {
  /** Which methods have streams, as far as the source says so; also those of methods without a rule. */
  readonly kinds: ReadonlyMap<string, MethodKind>;
  readonly #declared: ReadonlyMap<string, Rule | string>;
  readonly #advice: string;

  /**
   * @param declared - a rule, or what is wrong with it
   * @param kinds - which methods have streams
   * @param advice - what to do about a method that has none
   */
  constructor(
    declared: ReadonlyMap<string, Rule | string>,
    kinds: ReadonlyMap<string, MethodKind>,
    advice: string,
  ) {
    this.#declared = declared;
    this.kinds = kinds;
    this.#advice = advice;
  }

  /** The full paths of the methods. */
  get paths(): Iterable<string> {
    return this.#declared.keys();
  }

  /**
   * The rules of these methods.
   *
   * @throws TypeError naming every method without a rule or with a contradictory one, so that the server does not start
   */
  read(paths: Iterable<string> = this.paths): Map<string, AccessRule> {
    const rules = new Map<string, AccessRule>();
    const faults: string[] = [];
    let isMissing = false;
    for (const path of paths) {
      const declared = this.#declared.get(path);
      isMissing ||= declared === undefined;
      const rule = declared === undefined ? 'declares no access rule' : readRule(declared);
      if (typeof rule === 'string') faults.push(`${path} ${rule}`);
      else rules.set(path, rule);
    }
    if (faults.length === 0) return rules;
    throw new TypeError(`${faults.join('; ')}${isMissing ? `. ${this.#advice}` : ''}`);
  }
}

function readRule(declared: Rule | string): AccessRule | string {
  return typeof declared === 'string' ? declared : ruleOf(declared);
}

/**
 * The rules of all methods of a service, by the full path of the method.
 *
 * @param source - ts-proto's `protoMetadata`, or the result of {@link codeRules} or `descriptorRules`
 * @throws TypeError naming every method without a rule or with a contradictory one, so that the server does not start
 */
export function readRules(
  definition: ServiceDefinition,
  source: SchemaMetadata | AccessRules,
): Map<string, AccessRule> {
  return accessRulesOf(definition, source).read(Object.values(definition).map(({ path }) => path));
}

/** The access rules of a service, wherever they come from. */
export function accessRulesOf(
  definition: ServiceDefinition,
  source: SchemaMetadata | AccessRules,
): AccessRules {
  return source instanceof AccessRules ? source : generatedRules(definition, source);
}

/** The rules in the `protoMetadata` that ts-proto generates with `outputSchema=no-file-descriptor`. */
function generatedRules(definition: ServiceDefinition, schema: SchemaMetadata): AccessRules {
  const declared = new Map<string, Rule | string>();
  for (const { path } of Object.values(definition)) {
    // The definition lists every method; the schema's metadata only those that have options.
    const [service = '', method = ''] = path.slice(1).split('/');
    const options = schema.options?.services?.[service.slice(service.lastIndexOf('.') + 1)]?.methods;
    const rule = options && Object.hasOwn(options, method) ? options[method]?.['rule'] : undefined;
    if (declared.has(path)) declared.set(path, TWICE);
    else if (rule !== undefined) declared.set(path, newerMemberOf(rule as Rule) ?? (rule as Rule));
  }
  return new AccessRules(
    declared,
    kindsOf(definition),
    'Declare option (portcullis.access.v1.rule) of the method in its .proto and generate the code again, or pass ' +
      'codeRules or descriptorRules',
  );
}

function kindsOf(definition: ServiceDefinition): Map<string, MethodKind> {
  return new Map(
    Object.values(definition).map(({ path, requestStream, responseStream }) => [
      path,
      { requestStream, responseStream },
    ]),
  );
}

/**
 * What is wrong with a rule that the code of a newer schema has decoded: it has a member that this version does not know, so
 * it would not be checked. Fields that the generated code itself does not know have left no trace.
 */
function newerMemberOf(rule: Rule): string | undefined {
  for (const [name, value] of Object.entries(rule) as [string, unknown][]) {
    if (RULE_MEMBERS.has(name) || isDefault(value)) continue;
    return `has a rule of a newer version: its ${name} is not known`;
  }
  return undefined;
}

/** Whether it is what a decoder gives to a member that is not in the message. */
function isDefault(value: unknown): boolean {
  if (typeof value === 'object' && value !== null) return Object.keys(value).length === 0;
  return [undefined, null, false, 0, 0n, ''].some((initial) => Object.is(initial, value));
}

/**
 * Rules written in code, for schemas that one cannot change.
 *
 * @throws TypeError naming every method without a rule, or with one that contradicts itself
 */
export function codeRules<Definition extends ServiceDefinition>(
  definition: Definition,
  rules: CodeRules<Definition>,
): AccessRules {
  const declared = new Map<string, Rule | string>();
  for (const [name, { path }] of Object.entries(definition)) {
    const rule = Object.hasOwn(rules, name) ? rules[name] : undefined;
    if (declared.has(path)) declared.set(path, TWICE);
    else if (rule !== undefined) declared.set(path, declaredRule(rule));
  }
  const unknown = Object.keys(rules).filter((name) => !Object.hasOwn(definition, name));
  if (unknown.length > 0) throw new TypeError(`no such method: ${unknown.join(', ')}`);
  const result = new AccessRules(declared, kindsOf(definition), 'Add it to the table of rules');
  result.read(Object.values(definition).map(({ path }) => path));
  return result;
}

function declaredRule(rule: CodeRule): Rule | string {
  if (rule === 'public') return Rule.fromPartial({ public: true });
  const fault = faultOfCodeRule(rule);
  if (fault !== undefined) return fault;
  const { maxAuthAgeSeconds, maxRequestBytes = 0 } = rule;
  if (maxAuthAgeSeconds !== undefined && !(maxAuthAgeSeconds >= 0 && Number.isFinite(maxAuthAgeSeconds))) {
    return 'has a maxAuthAgeSeconds that is not a number of seconds';
  }
  if (!(Number.isInteger(maxRequestBytes) && maxRequestBytes >= 0)) {
    return 'has a maxRequestBytes that is not a number of bytes';
  }
  const wholeSeconds = Math.floor(maxAuthAgeSeconds ?? 0);
  return {
    public: false,
    scopes: listOf(rule.scopes),
    roles: listOf(rule.roles),
    caller: rule.caller === undefined ? Caller.CALLER_UNSPECIFIED : Caller[`CALLER_${rule.caller}`],
    maxAuthAge:
      maxAuthAgeSeconds === undefined
        ? undefined
        : { seconds: BigInt(wholeSeconds), nanos: Math.round((maxAuthAgeSeconds - wholeSeconds) * 1e9) },
    onStale: rule.allowStale === true ? OnStale.ON_STALE_ALLOW : OnStale.ON_STALE_UNSPECIFIED,
    maxRequestBytes,
  };
}

/** The conditions of a rule in code. */
const CONDITIONS: ReadonlySet<string> = new Set([
  'scopes',
  'roles',
  'caller',
  'maxAuthAgeSeconds',
  'allowStale',
  'maxRequestBytes',
]);

/** A condition that is misspelt, or whose value is missing, would leave the method open to more callers than was meant. */
function faultOfCodeRule(rule: object): string | undefined {
  for (const [name, value] of Object.entries(rule)) {
    if (!CONDITIONS.has(name)) return `has ${JSON.stringify(name)}, which is no condition`;
    if (value === undefined) return `has ${name} without a value`;
    if (Array.isArray(value) && value.length === 0) return `has ${name} without a word`;
  }
  return undefined;
}

function listOf(words: string | readonly string[] = []): string[] {
  return typeof words === 'string' ? [words] : [...words];
}
