/** A file of access rules, for services whose .proto has none. */

import { type AccessRules, type CodeRule, codeRules } from '@portcullis/guard';
import type { MethodKind } from '@portcullis/guard/engine';
import { z } from 'zod';
import { type Described, type Place, shapeFaults, unknownName } from './shape-faults.js';
import { readYaml, UnreadableError } from './yaml-file.js';

/** Maximum size of a file of rules, or of a descriptor set, in bytes. */
export const RULES_BYTES_MAX = 16 * 1024 * 1024;

/** What a schema says about the streams of methods, by path. */
export type Kinds = ReadonlyMap<string, MethodKind>;

const UNARY: MethodKind = { requestStream: false, responseStream: false };

/** Methods of gRPC itself, which descriptor sets seldom have. */
const HEALTH: Kinds = new Map([
  ['/grpc.health.v1.Health/Check', UNARY],
  ['/grpc.health.v1.Health/List', UNARY],
  ['/grpc.health.v1.Health/Watch', { requestStream: false, responseStream: true }],
]);
const REFLECTION: Kinds = new Map(
  ['v1', 'v1alpha'].map((version) => [
    `/grpc.reflection.${version}.ServerReflection/ServerReflectionInfo`,
    { requestStream: true, responseStream: true },
  ]),
);
export const HEALTH_METHODS: readonly string[] = [...HEALTH.keys()];
export const REFLECTION_METHODS: readonly string[] = [...REFLECTION.keys()];

/** Services that a server may have beside its own, and that its schema need not have. */
const OTHER_METHOD = /^\/(?:google|grpc|portcullis)\./;

const words = z.union([z.string().min(1), z.array(z.string().min(1)).min(1)], {
  error: 'must be a word, or a list of words',
});

const CONDITIONS = {
  scopes: words.optional(),
  roles: words.optional(),
  caller: z.enum(['USER', 'SERVICE']).optional(),
  maxAuthAgeSeconds: z.number().min(0).optional(),
  allowStale: z.boolean().optional(),
  maxRequestBytes: z.number().int().min(0).optional(),
};

const rule = z.union([z.literal('public'), z.strictObject(CONDITIONS)], {
  error: 'must be public, or a table of conditions: {} admits every authenticated caller',
});
const SERVICE_NAME = /^[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*$/;
const METHOD_NAME = /^[A-Za-z_]\w*$/;
const fileShape = z.strictObject({
  services: z.record(
    z.string().regex(SERVICE_NAME, 'must be the full name of a service'),
    z.record(z.string().regex(METHOD_NAME, 'must be the name of a method'), rule),
  ),
});

/** `services`, the service, its method, a condition, the item of a list. */
function placeOf(place: Place): string {
  const [top, service, method, ...rest] = place.map(String);
  if (service === undefined) return top ?? 'the file';
  const where = method === undefined ? service : `${service}/${method}`;
  return rest.length === 0 ? where : `${where}: ${rest.join('.')}`;
}

const DESCRIBED: Described = {
  placeOf,
  knownAt: (place) => {
    if (place.length === 0) return { noun: 'part of a file of rules', names: ['services'] };
    return place.length === 3 ? { noun: 'condition', names: Object.keys(CONDITIONS) } : undefined;
  },
};

/**
 * Reads a file of rules.
 *
 * @param kinds the methods of the schema; undefined when there is none: then any method may stand in the file
 * @param faults receives every fault
 */
export function readRulesFile(
  file: string,
  kinds: Kinds | undefined,
  faults: string[],
): AccessRules | undefined {
  let content: unknown;
  try {
    content = readYaml(file, RULES_BYTES_MAX);
  } catch (error) {
    if (!(error instanceof UnreadableError)) throw error;
    faults.push(`rules: ${file} ${error.message}`);
    return undefined;
  }
  const parsed = fileShape.safeParse(content);
  faults.push(...unknownMethods(pathsIn(content), kinds).map((fault) => `rules: ${fault}`));
  if (!parsed.success) {
    const found = shapeFaults(parsed.error, content, DESCRIBED);
    faults.push(...found.map((fault) => `rules: ${fault}`));
    return undefined;
  }
  const rules = Object.entries(parsed.data.services).flatMap(([service, methods]) =>
    Object.entries(methods).map(([method, given]) => [`/${service}/${method}`, given as CodeRule] as const),
  );
  return rulesOf(rules, kinds, faults);
}

/** The methods that a file names, also when something else is wrong with it. */
function pathsIn(content: unknown): string[] {
  return Object.entries(tableIn(tableIn(content)['services'])).flatMap(([service, methods]) =>
    Object.keys(tableIn(methods)).map((method) => `/${service}/${method}`),
  );
}

function tableIn(value: unknown): Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value) ? { ...value } : {};
}

/**
 * What is wrong with methods that do not exist: a rule for one would protect nothing.
 *
 * @param kinds the methods of the schema; undefined when there is none: then any method of the service may exist
 */
export function unknownMethods(paths: Iterable<string>, kinds: Kinds | undefined): string[] {
  const known = new Set([...(kinds?.keys() ?? []), ...HEALTH_METHODS, ...REFLECTION_METHODS]);
  const services = new Set([...known].map(serviceOf));
  const faults = [...paths]
    .filter((path) => !known.has(path))
    .flatMap((path) => {
      const service = serviceOf(path);
      if (services.has(service)) {
        const names = [...known].filter((one) => serviceOf(one) === service).map(methodOf);
        return [
          `${service}/${methodOf(path)} ${unknownName(methodOf(path), { noun: 'method of the service', names })}`,
        ];
      }
      if (kinds === undefined || OTHER_METHOD.test(path)) return [];
      const own = [...new Set([...kinds.keys()].map(serviceOf))];
      return [`${service} ${unknownName(service, { noun: 'service of the descriptor set', names: own })}`];
    });
  return [...new Set(faults)];
}

/** The full name of a method's service. */
function serviceOf(path: string): string {
  return path.slice(1, path.lastIndexOf('/'));
}

function methodOf(path: string): string {
  return path.slice(path.lastIndexOf('/') + 1);
}

/** Rules by path, checked. @param faults receives every fault */
export function rulesOf(
  rules: readonly (readonly [path: string, rule: CodeRule])[],
  kinds: Kinds | undefined,
  faults: string[],
): AccessRules | undefined {
  const definition = Object.fromEntries(
    rules.map(([path]) => [path, methodAt(path, kinds?.get(path) ?? HEALTH.get(path) ?? UNKNOWN_KIND)]),
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
