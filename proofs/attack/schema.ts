/** The methods under attack and their access rules, read from the descriptor image. */

import { readFileSync } from 'node:fs';
import { createFileRegistry, type DescMethod, fromBinary, getExtension } from '@bufbuild/protobuf';
import { FileDescriptorSetSchema } from '@bufbuild/protobuf/wkt';

const IMAGE = new URL('../../proto/gen/image.binpb', import.meta.url);

/** The values of the rule's `caller`. */
export const CALLER = { any: 0, user: 1, service: 2 } as const;

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

function readGuardedMethods(): GuardedMethod[] {
  const registry = createFileRegistry(fromBinary(FileDescriptorSetSchema, readFileSync(IMAGE)));
  const extension = registry.getExtension('portcullis.access.v1.rule');
  if (extension === undefined) throw new TypeError('the image lacks the method option of access rules');
  const methods = [...registry]
    .filter((type) => type.kind === 'service')
    .filter(({ typeName }) => !/^(google|grpc)\./.test(typeName))
    .flatMap((service) => service.methods);
  return methods.flatMap((method) => {
    if (method.proto.options === undefined) throw new TypeError(`${pathOf(method)} has no access rule`);
    const value: unknown = getExtension(method.proto.options, extension);
    const rule = value as GuardedMethod & { readonly public: boolean };
    if (rule.public) return [];
    const { scopes, roles, caller } = rule;
    return [{ path: pathOf(method), audience: audienceOf(method), scopes, roles, caller }];
  });
}

function pathOf(method: DescMethod): string {
  return `/${method.parent.typeName}/${method.name}`;
}

/** Auth serves the methods that the library declares. */
function audienceOf(method: DescMethod): string {
  const [first = ''] = method.parent.typeName.split('.');
  return first === 'portcullis' ? 'auth' : first;
}
