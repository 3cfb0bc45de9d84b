/** Access rules in the descriptor set of a compiled schema, for code that is not generated from it. */

import { Rule } from '../../gen/portcullis/access/v1/access.js';
import { type DescribedMethod, methodsIn } from '../wire/descriptor-set.js';
import { fieldsIn, MalformedMessageError } from '../wire/protobuf-fields.js';
import { type AccessRule, ruleOf } from './access-rule.js';
import type { MethodKind } from './decision.js';
import { AccessRules, TWICE } from './rule-sources.js';

/** The field number of the option `portcullis.access.v1.rule`. */
const RULE_FIELD = 52473;

/** The largest field number of a Rule that this version knows. */
const RULE_FIELD_MAX = 7;

/** The fields of a Rule that are numbers: `public`, `caller`, `on_stale` and `max_request_bytes`. */
const NUMBERS: ReadonlySet<number> = new Set([1, 4, 6, 7]);

/** What to do about a method without a rule. */
const ADVICE =
  'Declare option (portcullis.access.v1.rule) of the method in its .proto and compile the descriptor set again';

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
  const methods = describedMethods(descriptorSet);
  const declared = new Map<string, Rule | string>();
  const paths = new Set<string>();
  for (const { path, option, packageName } of methods) {
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
  return new AccessRules(declared, kindsOf(methods), ADVICE);
}

/** What {@link serviceRules} reads of a descriptor set. */
export interface ServiceRulesOptions {
  /**
   * Full names of services, such as `greeter.v1.GreeterService`. Default: all in the set, but those of Google, of gRPC and
   * of this library.
   */
  readonly services?: Iterable<string> | undefined;
  /**
   * Full paths of methods that need no token. Those of gRPC's own services declare no rule, so they are named here, such
   * as `/grpc.health.v1.Health/Check`. They may be missing in the set.
   */
  readonly publicMethods?: Iterable<string> | undefined;
}

/**
 * The rules of whole services in a descriptor set: every method has a rule, or is named as public. For servers whose code
 * cannot be asked for its methods.
 *
 * @throws TypeError naming every method without a rule or with a contradictory one, every public method that the schema
 *   gives another rule, and every service that the set does not have; or when the bytes are no descriptor set
 */
export function serviceRules(
  descriptorSet: Uint8Array,
  { services, publicMethods = [] }: ServiceRulesOptions = {},
): AccessRules {
  const methods = describedMethods(descriptorSet);
  const wanted = services === undefined ? undefined : new Set(services);
  const found = new Set(methods.map(({ path }) => serviceOf(path)));
  const chosen = methods.filter(({ path, packageName }) =>
    wanted === undefined ? !OTHER_PACKAGES.test(packageName) : wanted.has(serviceOf(path)),
  );
  const missing = [...(wanted ?? [])].filter((service) => !found.has(service));
  if (missing.length > 0) throw new TypeError(`the descriptor set has no service ${missing.join(', ')}`);
  const declared = new Map<string, Rule | string | undefined>();
  for (const { path, option } of chosen) {
    const rule = option === undefined ? undefined : ruleIn(option);
    declared.set(path, declared.has(path) ? TWICE : rule);
  }
  for (const path of publicMethods) declared.set(path, publicRule(path, declared.get(path), found, methods));
  if (declared.size === 0)
    throw new TypeError('the descriptor set has no service: name one, or compile it in');
  const rules = new Map(
    [...declared].filter((entry): entry is [string, Rule | string] => entry[1] !== undefined),
  );
  const result = new AccessRules(rules, kindsOf(methods), ADVICE);
  result.read(declared.keys());
  return result;
}

/** The rule of a method that is named as public, or what is wrong with that. */
function publicRule(
  path: string,
  declared: Rule | string | undefined,
  services: ReadonlySet<string>,
  methods: readonly DescribedMethod[],
): Rule | string {
  if (declared !== undefined && !(typeof declared === 'object' && declared.public)) {
    return 'is named as public, and declares another rule in its schema: name it no longer, or change the schema';
  }
  if (services.has(serviceOf(path)) && !methods.some((method) => method.path === path)) {
    return 'is named as public, and its service has no such method';
  }
  return declared ?? Rule.fromPartial({ public: true });
}

/** The full name of a method's service. */
function serviceOf(path: string): string {
  return path.slice(1, path.lastIndexOf('/'));
}

function kindsOf(methods: readonly DescribedMethod[]): Map<string, MethodKind> {
  return new Map(
    methods.map(({ path, requestStream, responseStream }) => [path, { requestStream, responseStream }]),
  );
}

function describedMethods(descriptorSet: Uint8Array): DescribedMethod[] {
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
