/** Server reflection, v1 and v1alpha, straight from the compiled descriptors. */
import { readFileSync } from 'node:fs';
import { BinaryReader } from '@bufbuild/protobuf/wire';
import type { Server } from '@grpc/grpc-js';
import { status } from '@grpc/grpc-js';
import { bidi } from '@portcullis/guard';
import type { DescriptorProto } from '../../../proto/gen/google/protobuf/descriptor.js';
import { FileDescriptorProto } from '../../../proto/gen/google/protobuf/descriptor.js';
import type {
  ServerReflectionRequest,
  ServerReflectionResponse,
} from '../../../proto/gen/grpc/reflection/v1/reflection.js';
import { ServerReflectionService } from '../../../proto/gen/grpc/reflection/v1/reflection.js';
import { ServerReflectionService as AlphaService } from '../../../proto/gen/grpc/reflection/v1alpha/reflection.js';

/** The full names of both versions of the service. */
export const REFLECTION_SERVICES: readonly string[] = [ServerReflectionService, AlphaService].map(
  ({ serverReflectionInfo }) => serverReflectionInfo.path.split('/')[1] ?? '',
);

/** The full paths of their methods. */
export const REFLECTION_METHODS: readonly string[] = [ServerReflectionService, AlphaService].map(
  ({ serverReflectionInfo }) => serverReflectionInfo.path,
);

/** The compiled descriptors of everything in `proto/`. */
export const DESCRIPTOR_IMAGE = new URL('../../../proto/gen/image.binpb', import.meta.url);

/** Adds both versions to a server; `serviceNames` is what they list. */
export function addReflection(server: Server, serviceNames: readonly string[], image: Uint8Array): void {
  const index = indexImage(image);
  const names = [...new Set(serviceNames)].sort();
  // The messages of both versions are the same on the wire, field by field.
  const handler = bidi<ServerReflectionRequest, ServerReflectionResponse>((requests) =>
    answerAll(index, names, requests),
  );
  server.addService(ServerReflectionService, { serverReflectionInfo: handler });
  server.addService(AlphaService, { serverReflectionInfo: handler });
}

/** The descriptors as compiled. */
export function readDescriptorImage(): Uint8Array {
  return readFileSync(DESCRIPTOR_IMAGE);
}

/** One file. Its bytes are sent unchanged, because decoding and encoding would lose unknown options. */
interface IndexedFile {
  readonly name: string;
  readonly bytes: Buffer;
  readonly dependencies: readonly string[];
}

interface DescriptorIndex {
  readonly files: Map<string, IndexedFile>;
  /** The file of each service, method, message, enum, field of extension. */
  readonly symbols: Map<string, IndexedFile>;
  /** By the message they extend, then by number. */
  readonly extensions: Map<string, Map<number, IndexedFile>>;
}

async function* answerAll(
  index: DescriptorIndex,
  serviceNames: readonly string[],
  requests: AsyncIterable<ServerReflectionRequest>,
): AsyncGenerator<ServerReflectionResponse> {
  const sent = new Set<string>();
  for await (const request of requests) {
    const messageResponse = answer(index, serviceNames, request.messageRequest, sent);
    yield { validHost: request.host, originalRequest: request, messageResponse };
  }
}

type Answer = NonNullable<ServerReflectionResponse['messageResponse']>;

function answer(
  index: DescriptorIndex,
  serviceNames: readonly string[],
  request: ServerReflectionRequest['messageRequest'],
  sent: Set<string>,
): Answer {
  switch (request?.$case) {
    case 'fileByFilename':
      return describeFile(index, index.files.get(request.value), sent);
    case 'fileContainingSymbol':
      return describeFile(index, index.symbols.get(request.value.replace(/^\./, '')), sent);
    case 'fileContainingExtension': {
      const { containingType, extensionNumber } = request.value;
      return describeFile(index, index.extensions.get(containingType)?.get(extensionNumber), sent);
    }
    case 'allExtensionNumbersOfType':
      return describeExtensions(index, request.value);
    case 'listServices':
      return { $case: 'listServicesResponse', value: { service: serviceNames.map((name) => ({ name })) } };
    default:
      return refuse(status.INVALID_ARGUMENT, 'the request names nothing to look up');
  }
}

/** The file, and those it needs that this caller does not have yet. */
function describeFile(index: DescriptorIndex, file: IndexedFile | undefined, sent: Set<string>): Answer {
  if (file === undefined) return refuse(status.NOT_FOUND, 'not found');
  const others = dependenciesOf(index, file).filter(({ name }) => !sent.has(name));
  const files = [file, ...others];
  for (const { name } of files) sent.add(name);
  return { $case: 'fileDescriptorResponse', value: { fileDescriptorProto: files.map(({ bytes }) => bytes) } };
}

function dependenciesOf(index: DescriptorIndex, file: IndexedFile): IndexedFile[] {
  const found = new Set([file]);
  // A set is walked in order of insertion, and what is added on the way is walked too.
  for (const { dependencies } of found) {
    for (const name of dependencies) {
      const dependency = index.files.get(name);
      if (dependency !== undefined) found.add(dependency);
    }
  }
  found.delete(file);
  return [...found];
}

function describeExtensions(index: DescriptorIndex, type: string): Answer {
  const numbers = index.extensions.get(type);
  if (numbers === undefined && !index.symbols.has(type)) return refuse(status.NOT_FOUND, 'not found');
  const extensionNumber = [...(numbers?.keys() ?? [])];
  return { $case: 'allExtensionNumbersResponse', value: { baseTypeName: type, extensionNumber } };
}

function refuse(errorCode: status, errorMessage: string): Answer {
  return { $case: 'errorResponse', value: { errorCode, errorMessage } };
}

function indexImage(image: Uint8Array): DescriptorIndex {
  const index: DescriptorIndex = { files: new Map(), symbols: new Map(), extensions: new Map() };
  for (const bytes of filesOf(image)) {
    const descriptor = FileDescriptorProto.decode(bytes);
    const file = { name: descriptor.name ?? '', bytes, dependencies: descriptor.dependency };
    index.files.set(file.name, file);
    indexFile(index, file, descriptor);
  }
  return index;
}

/** Cuts a FileDescriptorSet, which is nothing but repeated field 1, into its files without decoding them. */
function filesOf(image: Uint8Array): Buffer[] {
  const reader = new BinaryReader(image);
  const files: Buffer[] = [];
  while (reader.pos < reader.len) {
    const [field, wireType] = reader.tag();
    if (field === 1) files.push(Buffer.from(reader.bytes()));
    else reader.skip(wireType, field);
  }
  return files;
}

function indexFile(index: DescriptorIndex, file: IndexedFile, descriptor: FileDescriptorProto): void {
  const scope = descriptor.package ? `${descriptor.package}.` : '';
  for (const service of descriptor.service) {
    index.symbols.set(`${scope}${service.name}`, file);
    for (const method of service.method) index.symbols.set(`${scope}${service.name}.${method.name}`, file);
  }
  indexTypes(index, file, scope, { ...descriptor, nestedType: descriptor.messageType });
}

function indexTypes(
  index: DescriptorIndex,
  file: IndexedFile,
  scope: string,
  types: Pick<DescriptorProto, 'nestedType' | 'enumType' | 'extension'>,
): void {
  const add = (name: string | undefined) => index.symbols.set(`${scope}${name}`, file);
  for (const message of types.nestedType) {
    add(message.name);
    indexTypes(index, file, `${scope}${message.name}.`, message);
  }
  for (const enumeration of types.enumType) {
    add(enumeration.name);
    // The values of an enum are named beside it, not inside it.
    for (const value of enumeration.value) add(value.name);
  }
  for (const { name, number = 0, extendee = '' } of types.extension) {
    add(name);
    const extended = extendee.replace(/^\./, '');
    const numbers = index.extensions.get(extended) ?? new Map<number, IndexedFile>();
    index.extensions.set(extended, numbers.set(number, file));
  }
}
