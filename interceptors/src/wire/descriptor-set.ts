/** The options of methods in a descriptor set (`google.protobuf.FileDescriptorSet`), read without knowing their types. */

import { fromBinary } from '@bufbuild/protobuf';
import { BinaryReader } from '@bufbuild/protobuf/wire';
import { FileDescriptorSetSchema } from '@bufbuild/protobuf/wkt';

/** A method of a descriptor set, and one of its options. */
export interface MethodOption {
  /** The full path, such as `/greeter.v1.GreeterService/SayHello`. */
  readonly path: string;
  /** The message of the option; undefined when the method does not have it, `malformed` when it is no message. */
  readonly message: Uint8Array | undefined | 'malformed';
}

/** WIRE_LEN: a message or a text (Protocol Buffers, Encoding). */
const LENGTH_DELIMITED = 2;

/**
 * Every method of a descriptor set, with the option that has this field number.
 *
 * @throws TypeError when the bytes are no descriptor set
 */
export function methodOptions(descriptorSet: Uint8Array, option: number): MethodOption[] {
  return readFiles(descriptorSet).flatMap(({ package: name, service: services }) =>
    services.flatMap((service) => {
      const prefix = name === '' ? service.name : `${name}.${service.name}`;
      return service.method.map((method) => ({
        path: `/${prefix}/${method.name}`,
        message: optionOf(method.options?.$unknown ?? [], option),
      }));
    }),
  );
}

function readFiles(bytes: Uint8Array) {
  try {
    return fromBinary(FileDescriptorSetSchema, bytes).file;
  } catch (error) {
    throw new TypeError('expected a google.protobuf.FileDescriptorSet', { cause: error });
  }
}

/** The option may occur several times: its occurrences are merged, as in every message. */
function optionOf(
  fields: readonly { readonly no: number; readonly wireType: number; readonly data: Uint8Array }[],
  option: number,
): MethodOption['message'] {
  const found = fields.filter(({ no }) => no === option);
  if (found.length === 0) return undefined;
  if (found.some(({ wireType }) => wireType !== LENGTH_DELIMITED)) return 'malformed';
  return Buffer.concat(found.map(({ data }) => new BinaryReader(data).bytes()));
}

/** Whether a message has a field whose number is larger than `known`. @throws Error when it cannot be read */
export function hasFieldAbove(known: number, message: Uint8Array): boolean {
  const reader = new BinaryReader(message);
  while (reader.pos < reader.len) {
    const [field, wireType] = reader.tag();
    if (field > known) return true;
    reader.skip(wireType, field);
  }
  return false;
}
