/** The descriptor set of a service that a test invents. */

import { create, toBinary } from '@bufbuild/protobuf';
import {
  FileDescriptorProtoSchema,
  FileDescriptorSetSchema,
  MethodDescriptorProtoSchema,
  MethodOptionsSchema,
  ServiceDescriptorProtoSchema,
} from '@bufbuild/protobuf/wkt';
import { Rule } from '../../proto/gen/portcullis/access/v1/access.js';

/** A descriptor set with one method, whose rule requires this scope. */
export function descriptorSetWith(service: string, scope: string): Uint8Array {
  const rule = Rule.encode(Rule.fromPartial({ scopes: [scope] })).finish();
  const options = create(MethodOptionsSchema);
  options.$unknown = [{ no: 52_473, wireType: 2, data: Buffer.concat([Buffer.from([rule.length]), rule]) }];
  const method = create(MethodDescriptorProtoSchema, { name: 'Call', options });
  const file = create(FileDescriptorProtoSchema, {
    name: `${service}.proto`,
    package: `${service}.v1`,
    service: [create(ServiceDescriptorProtoSchema, { name: 'Service', method: [method] })],
  });
  return toBinary(FileDescriptorSetSchema, create(FileDescriptorSetSchema, { file: [file] }));
}
