/** The methods of the upstream and their access rules: from a descriptor set, from a file, and from flags. */

import { readFileSync } from 'node:fs';
import { fromBinary } from '@bufbuild/protobuf';
import { type FileDescriptorSet, FileDescriptorSetSchema } from '@bufbuild/protobuf/wkt';
import { type AccessRules, type CodeRule, codeRules, descriptorRules } from '@portcullis/guard';
import { type MethodKind, serviceRules } from '@portcullis/guard/engine';
import { parse as parseYaml } from 'yaml';
import { z } from 'zod';
import type { RulesSettings } from './settings.js';

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

const FILE_BYTES_MAX = 16 * 1024 * 1024;

/** Packages whose services a descriptor set may have beside those of the service. */
const OTHER_PACKAGES = /^(google|grpc|portcullis)(\.|$)/;

const HEALTH_METHODS = ['Check', 'Watch', 'List'].map((method) => `/grpc.health.v1.Health/${method}`);
const REFLECTION_METHODS = ['v1', 'v1alpha'].map(
  (version) => `/grpc.reflection.${version}.ServerReflection/ServerReflectionInfo`,
);

const words = z.union([z.string().min(1), z.array(z.string().min(1)).min(1)]);
const ruleShape = z.union([
  z.literal('public'),
  z.strictObject({
    scopes: words.optional(),
    roles: words.optional(),
    caller: z.enum(['USER', 'SERVICE']).optional(),
    maxAuthAgeSeconds: z.number().min(0).optional(),
    allowStale: z.boolean().optional(),
    maxRequestBytes: z.number().int().min(0).optional(),
  }),
]);
const SERVICE_NAME = /^[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*$/;
const METHOD_NAME = /^[A-Za-z_]\w*$/;
const fileShape = z.strictObject({
  services: z.record(
    z.string().regex(SERVICE_NAME, 'must be the full name of a service'),
    z.record(z.string().regex(METHOD_NAME, 'must be the name of a method'), ruleShape),
  ),
});

/**
 * Reads the rules. A rule in the file replaces that of the descriptor set.
 *
 * @throws RulesError naming every method without a rule, and every fault of the files
 */
export function readRuleTable(settings: RulesSettings): RuleTable {
  const faults: string[] = [];
  const described =
    settings.descriptors === undefined ? undefined : readDescriptors(settings.descriptors, faults);
  const kinds: Kinds = described?.kinds ?? new Map();
  const inFile = settings.file === undefined ? undefined : readRulesFile(settings.file, kinds, faults);
  const byFlags = flagRules(settings, kinds, faults);
  faults.push(...openedByFlags(settings, described?.rules, inFile));
  if (faults.length > 0) throw new RulesError(faults);
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
  for (const { source, rules, paths } of parts) {
    for (const path of paths) {
      try {
        if (rules === undefined) throw new TypeError(`${path} declares no access rule`);
        const rule = rules.read([path]).get(path);
        if (rule !== undefined) methods.set(path, { path, rule, kind: kinds.get(path), source });
      } catch (error) {
        if (!(error instanceof TypeError)) throw error;
        faults.push(`${error.message.split('. ')[0]}`);
      }
    }
  }
  if (faults.length > 0) {
    throw new RulesError([
      ...faults,
      'Declare option (portcullis.access.v1.rule) in the .proto and compile the descriptor set again, or add the methods to a file of rules',
    ]);
  }
  return {
    methods,
    parts: [
      ...(described === undefined ? [] : [{ rules: described.kindRules, paths: fromDescriptors }]),
      ...parts.slice(1).flatMap(({ rules, paths }) => (rules === undefined ? [] : [{ rules, paths }])),
    ],
  };
}

/** What the descriptor set says about the streams of methods, by path. */
type Kinds = ReadonlyMap<string, MethodKind>;

/** A descriptor set. */
interface Described {
  /** Undefined when no method declares a rule: all of them may be in the file. */
  readonly rules: AccessRules | undefined;
  /** The same, or rules that nobody reads, with the kinds of all methods. */
  readonly kindRules: AccessRules;
  readonly kinds: Kinds;
}

function readDescriptors(file: string, faults: string[]): Described | undefined {
  const bytes = readBounded(file, 'descriptors', faults);
  if (bytes === undefined) return undefined;
  let set: FileDescriptorSet;
  try {
    set = fromBinary(FileDescriptorSetSchema, bytes);
  } catch {
    faults.push(`descriptors: expected a google.protobuf.FileDescriptorSet: ${file}`);
    return undefined;
  }
  const kinds = kindsIn(set);
  if (kinds.size === 0) {
    faults.push(`descriptors: the set has no service: ${file}`);
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

function readRulesFile(file: string, kinds: Kinds, faults: string[]): AccessRules | undefined {
  const bytes = readBounded(file, 'rules', faults);
  if (bytes === undefined) return undefined;
  let content: unknown;
  try {
    content = parseYaml(bytes.toString('utf8'));
  } catch {
    faults.push(`rules: not valid YAML or JSON: ${file}`);
    return undefined;
  }
  const parsed = fileShape.safeParse(content);
  if (!parsed.success) {
    faults.push(
      ...parsed.error.issues.map((issue) => `rules: ${issue.path.join('.') || file}: ${issue.message}`),
    );
    return undefined;
  }
  const rules = Object.entries(parsed.data.services).flatMap(([service, methods]) =>
    Object.entries(methods).map(([method, rule]) => [`/${service}/${method}`, rule as CodeRule] as const),
  );
  return rulesOf(rules, kinds, faults);
}

function rulesOf(
  rules: readonly (readonly [path: string, rule: CodeRule])[],
  kinds: Kinds,
  faults: string[],
): AccessRules | undefined {
  const definition = Object.fromEntries(
    rules.map(([path]) => [path, methodAt(path, kinds.get(path) ?? UNKNOWN_KIND)]),
  );
  try {
    return codeRules(definition, Object.fromEntries(rules));
  } catch (error) {
    if (!(error instanceof TypeError)) throw error;
    faults.push(...error.message.split('; ').map((fault) => `rules: ${fault}`));
    return undefined;
  }
}

/** A method that no schema describes is treated as a stream in both directions. */
const UNKNOWN_KIND: MethodKind = { requestStream: true, responseStream: true };

/** The library asks a definition for the path and the streams alone. */
function methodAt(path: string, kind: MethodKind) {
  const same = (bytes: Buffer): Buffer => bytes;
  return {
    path,
    ...kind,
    requestSerialize: same,
    requestDeserialize: same,
    responseSerialize: same,
    responseDeserialize: same,
  };
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
  kinds: Kinds,
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

function readBounded(file: string, setting: string, faults: string[]): Buffer | undefined {
  try {
    const bytes = readFileSync(file);
    if (bytes.length <= FILE_BYTES_MAX) return bytes;
    faults.push(`${setting}: more than ${FILE_BYTES_MAX} bytes: ${file}`);
  } catch (error) {
    const code = error instanceof Error && 'code' in error ? String(error.code) : 'unknown error';
    faults.push(`${setting}: cannot be read: ${file} (${code})`);
  }
  return undefined;
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
