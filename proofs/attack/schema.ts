/** The methods under attack and their access rules, read from the descriptor image. */

import { readFileSync } from 'node:fs';
import { createFileRegistry, type DescMethod, fromBinary, getExtension, toBinary } from '@bufbuild/protobuf';
import { FileDescriptorSetSchema } from '@bufbuild/protobuf/wkt';

const IMAGE = new URL('../../proto/gen/image.binpb', import.meta.url);

/** The values of the rule's `caller`. */
export const CALLER = { any: 0, user: 1, service: 2 } as const;

/** The value of the rule's `on_stale` with which calls go on. */
const ON_STALE_ALLOW = 2;

/** A method that requires a token. */
export interface GuardedMethod {
  readonly path: string;
  /** The audience that its tokens must have. */
  readonly audience: string;
  readonly scopes: readonly string[];
  readonly roles: readonly string[];
  readonly caller: number;
}

/** Every method of the system that requires a token. */
export const GUARDED_METHODS: readonly GuardedMethod[] = readGuardedMethods();

/** A method and its rule, as the schema declares it. */
interface RuledMethod {
  readonly method: DescMethod;
  readonly rule: {
    readonly public: boolean;
    readonly scopes: readonly string[];
    readonly roles: readonly string[];
    readonly caller: number;
    readonly maxAuthAge?: { readonly seconds: bigint };
    readonly onStale: number;
    readonly maxRequestBytes: number;
  };
}

function readGuardedMethods(): GuardedMethod[] {
  return readRules().flatMap(({ method, rule }) => {
    if (rule.public) return [];
    const { scopes, roles, caller } = rule;
    return [{ path: pathOf(method), audience: audienceOf(method), scopes, roles, caller }];
  });
}

function readRules(): RuledMethod[] {
  const registry = createFileRegistry(fromBinary(FileDescriptorSetSchema, readFileSync(IMAGE)));
  const extension = registry.getExtension('portcullis.access.v1.rule');
  if (extension === undefined) throw new TypeError('the image lacks the method option of access rules');
  const methods = [...registry]
    .filter((type) => type.kind === 'service')
    .filter(({ typeName }) => !/^(google|grpc)\./.test(typeName))
    .flatMap((service) => service.methods);
  return methods.map((method) => {
    if (method.proto.options === undefined) throw new TypeError(`${pathOf(method)} has no access rule`);
    const value: unknown = getExtension(method.proto.options, extension);
    return { method, rule: value as RuledMethod['rule'] };
  });
}

/**
 * The rules that a gate needs in front of the process with this audience: the schema of its own services, and a file for those
 * that the library declares, because a gate takes these for messages that the service uses.
 */
export function rulesOf(audience: string): { readonly descriptors: Uint8Array; readonly file: object } {
  const set = fromBinary(FileDescriptorSetSchema, readFileSync(IMAGE));
  for (const file of set.file) {
    if (!file.package.startsWith(`${audience}.`)) file.service = [];
  }
  const declared = readRules().filter(
    ({ method }) => audienceOf(method) === audience && method.parent.typeName.startsWith('portcullis.'),
  );
  const services: Record<string, Record<string, unknown>> = {};
  for (const { method, rule } of declared) {
    services[method.parent.typeName] = { ...services[method.parent.typeName], [method.name]: inFile(rule) };
  }
  return { descriptors: toBinary(FileDescriptorSetSchema, set), file: { services } };
}

/** A rule in the form of a file of rules. */
function inFile(rule: RuledMethod['rule']): unknown {
  if (rule.public) return 'public';
  const { scopes, roles, caller, maxAuthAge, onStale, maxRequestBytes } = rule;
  return {
    ...(scopes.length > 0 && { scopes }),
    ...(roles.length > 0 && { roles }),
    ...(caller !== CALLER.any && { caller: caller === CALLER.user ? 'USER' : 'SERVICE' }),
    ...(maxAuthAge !== undefined && { maxAuthAgeSeconds: Number(maxAuthAge.seconds) }),
    ...(onStale === ON_STALE_ALLOW && { allowStale: true }),
    ...(maxRequestBytes > 0 && { maxRequestBytes }),
  };
}

function pathOf(method: DescMethod): string {
  return `/${method.parent.typeName}/${method.name}`;
}

/** Auth serves the methods that the library declares. */
function audienceOf(method: DescMethod): string {
  const [first = ''] = method.parent.typeName.split('.');
  return first === 'portcullis' ? 'auth' : first;
}
