/** A descriptor set in which every method declares its rule, made of a schema without rules and a file of rules. */

import { create, fromBinary, toBinary } from '@bufbuild/protobuf';
import { BinaryWriter, WireType } from '@bufbuild/protobuf/wire';
import {
  FileDescriptorProtoSchema,
  FileDescriptorSetSchema,
  type MethodDescriptorProto,
  MethodDescriptorProtoSchema,
  type MethodOptions,
  MethodOptionsSchema,
  ServiceDescriptorProtoSchema,
} from '@bufbuild/protobuf/wkt';
import { Caller, OnStale, Rule } from '@portcullis/guard/proto/portcullis/access/v1/access';
import { type CheckedRule, readRuleTable } from './rules.js';

/** The field number of the option `portcullis.access.v1.rule`. */
const RULE_FIELD = 52473;

/**
 * Puts the rules of a file into a descriptor set, for registering a service at auth. The set has the services and their
 * methods alone, because nothing else of the schema matters there.
 *
 * @param files - the file of rules, and the descriptor set whose methods it is about, if there is one
 * @throws RulesError with every fault of the files, and every method of the descriptor set without a rule
 */
export function ruledDescriptorSet(files: { readonly rules: string; readonly descriptors?: string }): Buffer {
  const { methods } = readRuleTable({
    descriptors: files.descriptors,
    file: files.rules,
    publicMethods: [],
    health: 'closed',
    reflection: 'closed',
  });
  const services = new Map<string, MethodDescriptorProto[]>();
  for (const { path, rule, kind } of methods.values()) {
    const [service = '', name = ''] = path.slice(1).split('/');
    const method = create(MethodDescriptorProtoSchema, {
      name,
      options: optionsWith(rule),
      clientStreaming: kind?.requestStream ?? false,
      serverStreaming: kind?.responseStream ?? false,
    });
    services.set(service, [...(services.get(service) ?? []), method]);
  }
  const file = [...services].map(([fullName, method], at) => {
    const end = fullName.lastIndexOf('.');
    return create(FileDescriptorProtoSchema, {
      name: `rules/${at}.proto`,
      package: fullName.slice(0, Math.max(0, end)),
      service: [create(ServiceDescriptorProtoSchema, { name: fullName.slice(end + 1), method })],
    });
  });
  return Buffer.from(toBinary(FileDescriptorSetSchema, create(FileDescriptorSetSchema, { file })));
}

/** The options of a method with nothing but its rule. */
function optionsWith(rule: CheckedRule): MethodOptions {
  const message = Rule.encode(ruleMessage(rule)).finish();
  const option = new BinaryWriter().tag(RULE_FIELD, WireType.LengthDelimited).bytes(message).finish();
  return fromBinary(MethodOptionsSchema, option);
}

function ruleMessage(rule: CheckedRule): Rule {
  if (rule.isPublic) return Rule.fromPartial({ public: true, maxRequestBytes: bytesOf(rule) });
  const { maxAuthAgeSeconds: age } = rule;
  const wholeSeconds = Math.floor(age ?? 0);
  return Rule.fromPartial({
    scopes: [...rule.scopes],
    roles: [...rule.roles],
    caller: CALLERS[rule.caller],
    maxAuthAge:
      age === undefined
        ? undefined
        : { seconds: BigInt(wholeSeconds), nanos: Math.round((age - wholeSeconds) * 1e9) },
    onStale: rule.allowStale ? OnStale.ON_STALE_ALLOW : OnStale.ON_STALE_UNSPECIFIED,
    maxRequestBytes: bytesOf(rule),
  });
}

const CALLERS: Readonly<Record<CheckedRule['caller'], Caller>> = {
  ANY: Caller.CALLER_UNSPECIFIED,
  USER: Caller.CALLER_USER,
  SERVICE: Caller.CALLER_SERVICE,
};

function bytesOf({ requestBytesMax }: CheckedRule): number {
  return Number.isFinite(requestBytesMax) ? requestBytesMax : 0;
}
