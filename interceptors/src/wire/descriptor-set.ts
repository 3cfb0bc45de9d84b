/** The methods of a descriptor set (`google.protobuf.FileDescriptorSet`), with one of their options. */

import { booleanIn, messagesIn, textIn } from './protobuf-fields.js';

/** A method of a descriptor set. */
export interface DescribedMethod {
  /** The package of its service. */
  readonly packageName: string;
  /** The full path, such as `/greeter.v1.GreeterService/SayHello`. */
  readonly path: string;
  /** The message of the option; undefined when the method does not have it. */
  readonly option: Uint8Array | undefined;
  /** The caller sends a stream of messages. */
  readonly requestStream: boolean;
  /** The server sends a stream of messages. */
  readonly responseStream: boolean;
}

/** Field numbers of google/protobuf/descriptor.proto. */
const FILE = 1;
const FILE_PACKAGE = 2;
const FILE_SERVICE = 6;
const NAME = 1;
const SERVICE_METHOD = 2;
const METHOD_OPTIONS = 4;
const METHOD_CLIENT_STREAMING = 5;
const METHOD_SERVER_STREAMING = 6;

/**
 * Every method of a descriptor set.
 *
 * @param option - the field number of an option of methods whose value is a message
 * @throws MalformedMessageError when the bytes are no descriptor set
 */
export function methodsIn(descriptorSet: Uint8Array, option: number): DescribedMethod[] {
  const methods: DescribedMethod[] = [];
  for (const file of messagesIn(descriptorSet, FILE)) {
    const packageName = textIn(file, FILE_PACKAGE);
    for (const service of messagesIn(file, FILE_SERVICE)) {
      const name = [packageName, textIn(service, NAME)].filter((part) => part !== '').join('.');
      for (const method of messagesIn(service, SERVICE_METHOD)) {
        // The parts of an option that is set twice add up, as those of every message do.
        const parts = messagesIn(method, METHOD_OPTIONS).flatMap((options) => messagesIn(options, option));
        methods.push({
          packageName,
          path: `/${name}/${textIn(method, NAME)}`,
          option: parts.length === 0 ? undefined : Buffer.concat(parts),
          requestStream: booleanIn(method, METHOD_CLIENT_STREAMING),
          responseStream: booleanIn(method, METHOD_SERVER_STREAMING),
        });
      }
    }
  }
  return methods;
}
