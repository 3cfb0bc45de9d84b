/** The methods of the upstream and their access rules: from a descriptor set, from a file, and from flags. */

import { fromBinary } from '@bufbuild/protobuf';
import { type FileDescriptorSet, FileDescriptorSetSchema } from '@bufbuild/protobuf/wkt';
import { type AccessRules, type CodeRule, descriptorRules } from '@portcullis/guard';
import { type MethodKind, serviceRules } from '@portcullis/guard/engine';
import {
  HEALTH_METHODS,
  type Kinds,
  REFLECTION_METHODS,
  RULES_BYTES_MAX,
  readRulesFile,
  rulesOf,
  unknownMethods,
} from './rules-file.js';
import type { RulesSettings } from './settings.js';
import { readBytes, UnreadableError } from './yaml-file.js';

/** A rule in the form in which it is checked. */
export type CheckedRule = ReturnType<AccessRules['read']> extends Map<string, infer Rule> ? Rule : never;

/** A method with its rule. */
export interface RuledMethod {
  readonly path: string;
  readonly rule: CheckedRule;
  /** Undefined when no schema says so. */
  readonly kind: MethodKind | undefined;
  /** Where the rule comes from. */
  readonly source: 'descriptors' | 'file' | 'flag';
}

/** All methods with their rules. */
export interface RuleTable {
  /** By path. */
  readonly methods: ReadonlyMap<string, RuledMethod>;
  /** The rules, for the engine, each with the paths for which it is asked; the first one also knows all kinds. */
  readonly parts: readonly { readonly rules: AccessRules; readonly paths: readonly string[] }[];
}

/** Methods without a rule, or with one that cannot be used. Each fault names its method or its file. */
export class RulesError extends Error {
  readonly faults: readonly string[];

  constructor(faults: readonly string[]) {
    super(['The access rules cannot be used:', ...faults.map((fault) => `  ${fault}`)].join('\n'));
    this.name = 'RulesError';
    this.faults = faults;
  }
}

/** Packages whose services a descriptor set may have beside those of the service. */
const OTHER_PACKAGES = /^(google|grpc|portcullis)(\.|$)/;

/**
 * Reads the rules. A rule in the file replaces that of the descriptor set.
 *
 * @throws RulesError naming every method without a rule, and every fault of the files
 */
export function readRuleTable(settings: RulesSettings): RuleTable {
  const faults: string[] = [];
  const described =
    settings.descriptors === undefined ? undefined : readDescriptors(settings.descriptors, faults);
  const kinds = described?.kinds;
  const inFile = settings.file === undefined ? undefined : readRulesFile(settings.file, kinds, faults);
  const byFlags = flagRules(settings, kinds, faults);
  faults.push(...unknownMethods(settings.publicMethods, kinds).map((fault) => `public: ${fault}`));
  faults.push(...openedByFlags(settings, described?.rules, inFile));
  const isRead = (settings.descriptors === undefined) === (described === undefined);
  if (!isRead || (settings.file === undefined) !== (inFile === undefined)) throw new RulesError(faults);
  const fromFile = new Set(inFile?.paths);
  const fromFlags = [...(byFlags?.paths ?? [])].filter((path) => !fromFile.has(path));
  const open = new Set([...fromFile, ...fromFlags]);
  const fromDescriptors = [...(described?.kinds.keys() ?? [])].filter((path) => !open.has(path));
  const parts = [
    { source: 'descriptors', rules: described?.rules, paths: fromDescriptors },
    { source: 'file', rules: inFile, paths: [...fromFile] },
    { source: 'flag', rules: byFlags, paths: fromFlags },
  ] as const;
  const methods = new Map<string, RuledMethod>();
  const without: string[] = [];
  for (const { source, rules, paths } of parts) {
    for (const path of paths) {
      try {
        if (rules === undefined) throw new TypeError(`${path} declares no access rule`);
        const rule = rules.read([path]).get(path);
        if (rule !== undefined) methods.set(path, { path, rule, kind: kinds?.get(path), source });
      } catch (error) {
        if (!(error instanceof TypeError)) throw error;
        without.push(`${error.message.split('. ')[0]}`);
      }
    }
  }
  if (without.length > 0) faults.push(...without, ADVICE);
  if (faults.length > 0) throw new RulesError(faults);
  return {
    methods,
    parts: [
      ...(described === undefined ? [] : [{ rules: described.kindRules, paths: fromDescriptors }]),
      ...parts.slice(1).flatMap(({ rules, paths }) => (rules === undefined ? [] : [{ rules, paths }])),
    ],
  };
}

const ADVICE =
  'Declare option (portcullis.access.v1.rule) in the .proto and compile the descriptor set again, or add the methods to a file of rules';

/** A descriptor set. */
interface Described {
  /** Undefined when no method declares a rule: all of them may be in the file. */
  readonly rules: AccessRules | undefined;
  /** The same, or rules that nobody reads, with the kinds of all methods. */
  readonly kindRules: AccessRules;
  readonly kinds: Kinds;
}

function readDescriptors(file: string, faults: string[]): Described | undefined {
  let bytes: Buffer;
  let set: FileDescriptorSet;
  try {
    bytes = readBytes(file, RULES_BYTES_MAX);
    set = fromBinary(FileDescriptorSetSchema, bytes);
  } catch (error) {
    const problem =
      error instanceof UnreadableError ? error.message : 'is no google.protobuf.FileDescriptorSet';
    faults.push(`descriptors: ${file} ${problem}: buf build -o FILE.binpb writes one`);
    return undefined;
  }
  const kinds = kindsIn(set);
  if (kinds.size === 0) {
    faults.push(`descriptors: ${file} has no service`);
    return undefined;
  }
  const rules = rulesIn(bytes);
  return { rules, kindRules: rules ?? serviceRules(bytes, { publicMethods: kinds.keys() }), kinds };
}

function rulesIn(descriptorSet: Uint8Array): AccessRules | undefined {
  try {
    return descriptorRules(descriptorSet);
  } catch (error) {
    if (error instanceof TypeError) return undefined;
    throw error;
  }
}

function kindsIn(set: FileDescriptorSet): Kinds {
  const kinds = new Map<string, MethodKind>();
  for (const file of set.file) {
    if (OTHER_PACKAGES.test(file.package)) continue;
    for (const service of file.service) {
      const prefix = file.package === '' ? '' : `${file.package}.`;
      for (const method of service.method) {
        kinds.set(`/${prefix}${service.name}/${method.name}`, {
          requestStream: method.clientStreaming,
          responseStream: method.serverStreaming,
        });
      }
    }
  }
  return kinds;
}

/**
 * Methods that `public` names although their rule demands a caller. A file of rules is written for a gate and replaces those
 * of the schema; in a list of names, a method that has a stricter rule is a mistake.
 */
function openedByFlags(
  { publicMethods }: RulesSettings,
  described: AccessRules | undefined,
  inFile: AccessRules | undefined,
): string[] {
  const inFilePaths = new Set(inFile?.paths);
  const describedPaths = new Set(described?.paths);
  return publicMethods.flatMap((path) => {
    const rules = inFilePaths.has(path) ? inFile : describedPaths.has(path) ? described : undefined;
    if (rules === undefined || isPublicIn(rules, path)) return [];
    const where = rules === inFile ? 'the file of rules' : 'the descriptor set';
    return [`public: ${path} has another rule in ${where}: name it no longer, or change that rule`];
  });
}

/** A rule that cannot be read is none that says so. */
function isPublicIn(rules: AccessRules, path: string): boolean {
  try {
    return rules.read([path]).get(path)?.isPublic === true;
  } catch (error) {
    if (error instanceof TypeError) return false;
    throw error;
  }
}

function flagRules(
  { publicMethods, health, reflection }: RulesSettings,
  kinds: Kinds | undefined,
  faults: string[],
): AccessRules | undefined {
  const rules: (readonly [string, CodeRule])[] = publicMethods.map((path) => [path, 'public']);
  if (health === 'public') rules.push(...HEALTH_METHODS.map((path) => [path, 'public'] as const));
  if (reflection !== 'closed') {
    const rule: CodeRule = reflection === 'public' ? 'public' : {};
    rules.push(...REFLECTION_METHODS.map((path) => [path, rule] as const));
  }
  return rulesOf(rules, kinds, faults);
}

/** A rule in one line, as `portcullis gate rules` prints it. */
export function describeRule(rule: CheckedRule): string {
  if (rule.isPublic) return 'public';
  const conditions = [
    rule.caller === 'ANY' ? '' : `caller ${rule.caller}`,
    rule.scopes.length === 0 ? '' : `scopes ${rule.scopes.join(' and ')}`,
    rule.roles.length === 0 ? '' : `roles ${rule.roles.join(' or ')}`,
    rule.maxAuthAgeSeconds === undefined ? '' : `login within ${rule.maxAuthAgeSeconds} s`,
    rule.allowStale ? 'also while the list is stale' : '',
    Number.isFinite(rule.requestBytesMax) ? `at most ${rule.requestBytesMax} bytes` : '',
  ].filter((condition) => condition !== '');
  return conditions.length === 0 ? 'any authenticated caller' : conditions.join(', ');
}
