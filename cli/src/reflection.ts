/** The schema of a running service, over server reflection (grpc.reflection.v1 or v1alpha). */

import { create, createFileRegistry, type FileRegistry, fromBinary, toBinary } from '@bufbuild/protobuf';
import { protoCamelCase } from '@bufbuild/protobuf/reflect';
import {
  type DescriptorProto,
  type FileDescriptorProto,
  FileDescriptorProtoSchema,
  FileDescriptorSetSchema,
} from '@bufbuild/protobuf/wkt';
import { Client, Metadata, type ServiceError, status } from '@grpc/grpc-js';
import {
  type ServerReflectionRequest,
  ServerReflectionService,
} from '../gen/grpc/reflection/v1/reflection.js';
import { CommandError, EXIT } from './failures.js';
import type { Connection } from './session.js';

/** Timeout of all questions together, in milliseconds. */
const REFLECTION_MS_MAX = 10_000;

const { serverReflectionInfo: REFLECTION } = ServerReflectionService;
/** The version before has the same messages, and is the only one that grpcio for Python serves. */
const REFLECTION_BEFORE = REFLECTION.path.replace('.v1.', '.v1alpha.');

/** A method, as people write it and as the wire names it. */
export interface MethodName {
  readonly service: string;
  readonly method: string;
  /** `/package.Service/Method`. */
  readonly path: string;
}

/** @throws CommandError for text that is no name of a method */
export function methodNameOf(text: string): MethodName {
  const [, service, method] = /^\/?([\w.]+)[/.](\w+)$/.exec(text) ?? [];
  if (service === undefined || method === undefined) {
    throw new CommandError('Expected a method such as inventory.v1.InventoryService/GetItem.', {
      exitCode: EXIT.usage,
    });
  }
  return { service, method, path: `/${service}/${method}` };
}

/** The schema of a service, with all that it imports. */
export interface Schema {
  readonly registry: FileRegistry;
  /** A `google.protobuf.FileDescriptorSet`. */
  readonly descriptorSet: Uint8Array;
}

/**
 * Asks the server for the schema of a service.
 *
 * @throws CommandError when the server does not know it
 */
export async function reflect(connection: Connection, service: string): Promise<Schema> {
  const client = connection.client(Client);
  return await reflectAt(REFLECTION.path, client, service).catch(async (error: Partial<ServiceError>) => {
    if (error.code !== status.UNIMPLEMENTED) throw error;
    return await reflectAt(REFLECTION_BEFORE, client, service);
  });
}

async function reflectAt(path: string, client: Client, service: string): Promise<Schema> {
  const stream = client.makeBidiStreamRequest(
    path,
    REFLECTION.requestSerialize,
    REFLECTION.responseDeserialize,
    new Metadata(),
    { deadline: Date.now() + REFLECTION_MS_MAX },
  );
  const answers = stream[Symbol.asyncIterator]();
  const files = new Map<string, FileDescriptorProto>();
  const ask = async (messageRequest: ServerReflectionRequest['messageRequest']): Promise<void> => {
    stream.write({ host: '', messageRequest });
    const { value, done } = await answers.next();
    const response = done === true ? undefined : (value as Awaited<ReturnType<typeof answers.next>>['value']);
    const { messageResponse } = (response ?? {}) as {
      messageResponse?: { $case: string; value: { fileDescriptorProto?: Buffer[]; errorMessage?: string } };
    };
    if (messageResponse?.$case !== 'fileDescriptorResponse') {
      throw new CommandError(
        `The server does not know ${service}: ${messageResponse?.value.errorMessage ?? 'no answer'}.`,
      );
    }
    for (const bytes of messageResponse.value.fileDescriptorProto ?? []) {
      const file = fromBinary(FileDescriptorProtoSchema, bytes);
      for (const message of file.messageType) addJsonNames(message);
      files.set(file.name, file);
    }
  };
  try {
    await ask({ $case: 'fileContainingSymbol', value: service });
    for (;;) {
      const missing = [...files.values()]
        .flatMap(({ dependency }) => dependency)
        .find((name) => !files.has(name));
      if (missing === undefined) break;
      await ask({ $case: 'fileByFilename', value: missing });
    }
  } finally {
    stream.end();
    stream.on('error', () => undefined);
    stream.cancel();
  }
  const set = create(FileDescriptorSetSchema, { file: inOrder(files) });
  return { registry: createFileRegistry(set), descriptorSet: toBinary(FileDescriptorSetSchema, set) };
}

/** The names of fields in JSON, which the descriptors of Python do not have. */
function addJsonNames(message: DescriptorProto): void {
  for (const field of message.field) field.jsonName ||= protoCamelCase(field.name);
  for (const nested of message.nestedType) addJsonNames(nested);
}

/** Each file after those that it imports. */
function inOrder(files: ReadonlyMap<string, FileDescriptorProto>): FileDescriptorProto[] {
  const ordered = new Map<string, FileDescriptorProto>();
  const visit = (name: string): void => {
    const file = files.get(name);
    if (file === undefined || ordered.has(name)) return;
    for (const dependency of file.dependency) visit(dependency);
    ordered.set(name, file);
  };
  for (const name of files.keys()) visit(name);
  return [...ordered.values()];
}
