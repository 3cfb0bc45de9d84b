/** Where access rules come from: generated code, a table in code, or the descriptor set of a compiled schema. */

import type { ServiceDefinition } from '@grpc/grpc-js';
import { Caller, OnStale, Rule } from '../../gen/portcullis/access/v1/access.js';
import { methodsIn } from '../wire/descriptor-set.js';
import { fieldsIn, MalformedMessageError } from '../wire/protobuf-fields.js';
import { type AccessRule, ruleOf, type SchemaMetadata } from './access-rule.js';

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

/** The field number of the option `portcullis.access.v1.rule`. */
const RULE_FIELD = 52473;

/** The largest field number of a Rule that this version knows. */
const RULE_FIELD_MAX = 7;

/** The members of a Rule in generated code that this version knows. */
const RULE_MEMBERS: ReadonlySet<string> = new Set(Object.keys(Rule.fromPartial({})));

/** What is wrong with a method that a schema has twice: with different rules, one of them would be lost. */
const TWICE = 'is declared twice';

/** The fields of a Rule that are numbers: `public`, `caller`, `on_stale` and `max_request_bytes`. */
const NUMBERS: ReadonlySet<number> = new Set([1, 4, 6, 7]);

/** Access rules by the full path of the method. */
export class AccessRules {
  readonly #declared: ReadonlyMap<string, Rule | string>;
  readonly #advice: string;

  /**
   * @param declared - a rule, or what is wrong with it
   * @param advice - what to do about a method that has none
   */
  constructor(declared: ReadonlyMap<string, Rule | string>, advice: string) {
    this.#declared = declared;
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
 * @param source - ts-proto's `protoMetadata`, or the result of {@link codeRules} or {@link descriptorRules}
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
    'Declare option (portcullis.access.v1.rule) of the method in its .proto and generate the code again, or pass ' +
      'codeRules or descriptorRules',
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
  const result = new AccessRules(declared, 'Add it to the table of rules');
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

/** A method of a descriptor set. */
interface DeclaredMethod {
  /** The full path, such as `/greeter.v1.GreeterService/SayHello`. */
  readonly path: string;
  /** Undefined when the method has none, or one with a fault. */
  readonly rule: AccessRule | undefined;
  /** What is wrong with the rule; undefined when it is valid or missing. */
  readonly fault: string | undefined;
}

/** Packages that a descriptor set may have beside those of the service: theirs are not its methods. */
const OTHER_PACKAGES = /^(google|grpc|portcullis)(\.|$)/;

/**
 * The methods of a service's descriptor set. Those of Google, of gRPC and of this library, which it may contain as well,
 * are left out.
 *
 * @throws MalformedMessageError when the bytes are no descriptor set
 */
export function methodsOfDescriptorSet(descriptorSet: Uint8Array): DeclaredMethod[] {
  const paths = new Set<string>();
  return methodsIn(descriptorSet, RULE_FIELD)
    .filter(({ packageName }) => !OTHER_PACKAGES.test(packageName))
    .map(({ path, option }) => {
      if (paths.has(path)) return { path, rule: undefined, fault: TWICE };
      paths.add(path);
      const rule = option === undefined ? undefined : ruleIn(option);
      const read = rule === undefined || typeof rule === 'string' ? rule : ruleOf(rule);
      return typeof read === 'string'
        ? { path, rule: undefined, fault: read }
        : { path, rule: read, fault: undefined };
    });
}

/**
 * The rules in a descriptor set (`google.protobuf.FileDescriptorSet`), as `buf build -o set.binpb` and
 * `protoc --include_imports -o set.binpb` write it: for frameworks that load the schema at run time.
 *
 * @throws TypeError when the bytes are no descriptor set, or none of its methods declares a rule
 */
export function descriptorRules(descriptorSet: Uint8Array): AccessRules {
  const declared = new Map<string, Rule | string>();
  const paths = new Set<string>();
  for (const { path, option, packageName } of describedMethods(descriptorSet)) {
    if (OTHER_PACKAGES.test(packageName)) continue;
    if (paths.has(path)) declared.set(path, TWICE);
    else if (option !== undefined) declared.set(path, ruleIn(option));
    paths.add(path);
  }
  if (declared.size === 0) {
    throw new TypeError(
      'the descriptor set has no method with the option (portcullis.access.v1.rule): declare it in the .proto',
    );
  }
  return new AccessRules(
    declared,
    'Declare option (portcullis.access.v1.rule) of the method in its .proto and compile the descriptor set again',
  );
}

function describedMethods(descriptorSet: Uint8Array) {
  try {
    return methodsIn(descriptorSet, RULE_FIELD);
  } catch (error) {
    if (!(error instanceof MalformedMessageError)) throw error;
    throw new TypeError('expected a google.protobuf.FileDescriptorSet', { cause: error });
  }
}

/** A condition that is not understood would not be checked, so that the method would be more open than its schema says. */
function ruleIn(message: Uint8Array): Rule | string {
  try {
    for (const { number, value } of fieldsIn(message)) {
      if (number > RULE_FIELD_MAX) return `has a rule of a newer version: field ${number} is not known`;
      // The generated code would leave it out.
      if ((typeof value === 'bigint') !== NUMBERS.has(number))
        return 'declares an access rule that cannot be read';
    }
    return Rule.decode(message);
  } catch {
    return 'declares an access rule that cannot be read';
  }
}
