/** The committed descriptor image, read by protobuf-es: a second reader, which shares nothing with the generated code. */
import { readFileSync } from 'node:fs';
import type { DescExtension, DescMessage, DescMethod, DescService, FileRegistry } from '@bufbuild/protobuf';
import { createFileRegistry, fromBinary, getExtension, hasExtension } from '@bufbuild/protobuf';
import { FileDescriptorSetSchema } from '@bufbuild/protobuf/wkt';

const IMAGE = new URL('../../proto/gen/image.binpb', import.meta.url);
const VENDORED_PACKAGES = /^(google|grpc)\./;

/** Everything the image describes. */
export const registry: FileRegistry = createFileRegistry(
  fromBinary(FileDescriptorSetSchema, readFileSync(IMAGE)),
);

/** Every service of this project, by name. */
export const ownServices: readonly DescService[] = [...registry]
  .filter((type) => type.kind === 'service')
  .filter((service) => !VENDORED_PACKAGES.test(service.typeName))
  .sort((left, right) => left.typeName.localeCompare(right.typeName));

/** Every method of this project. */
export const ownMethods: readonly DescMethod[] = ownServices.flatMap((service) => service.methods);

/** Every message of this project. */
export const ownMessages: readonly DescMessage[] = [...registry]
  .filter((type) => type.kind === 'message')
  .filter((message) => !VENDORED_PACKAGES.test(message.typeName));

/** An access rule, as plain values. */
export interface DeclaredRule {
  readonly public: boolean;
  readonly scopes: readonly string[];
  readonly roles: readonly string[];
  readonly caller: number;
  readonly maxAuthAge: { readonly seconds: bigint; readonly nanos: number } | undefined;
  readonly onStale: number;
}

/** The path of a method on the wire: `/package.Service/Method`. */
export function pathOf(method: DescMethod): string {
  return `/${method.parent.typeName}/${method.name}`;
}

/** The rule that a method declares; undefined when it declares none. */
export function ruleOf(method: DescMethod): DeclaredRule | undefined {
  const options = method.proto.options;
  const extension = ruleExtension();
  if (options === undefined || !hasExtension(options, extension)) return undefined;
  return plainRule(getExtension(options, extension) as unknown);
}

function ruleExtension(): DescExtension {
  const extension = registry.getExtension('portcullis.access.v1.rule');
  if (extension === undefined) throw new TypeError('the image lacks the method option of access rules');
  return extension;
}

function plainRule(message: unknown): DeclaredRule {
  const { public: isPublic, scopes, roles, caller, maxAuthAge, onStale } = message as DeclaredRule;
  return {
    public: isPublic,
    scopes: [...scopes],
    roles: [...roles],
    caller,
    maxAuthAge: maxAuthAge && { seconds: maxAuthAge.seconds, nanos: maxAuthAge.nanos },
    onStale,
  };
}
