/**
 * The methods of a descriptor set (google.protobuf.FileDescriptorSet) with their access rules. It comes from a caller, so it
 * is read field by field, without recursion, and every read is bounded by the bytes there are.
 */

import { invalidField } from '@portcullis/guard/errors';

/** Maximum size of a descriptor set, in bytes. */
export const DESCRIPTOR_SET_BYTES_MAX = 1024 * 1024;

/** Maximum number of methods in a descriptor set. */
export const METHODS_MAX = 2000;

/** The part of an access rule that says what a caller needs. */
interface DeclaredRule {
  readonly isPublic: boolean;
  readonly scopes: readonly string[];
  readonly roles: readonly string[];
  readonly forServices: boolean;
}

/** A method of a descriptor set. */
export interface DeclaredMethod {
  /** `/package.Service/Method`. */
  readonly path: string;
  /** What is wrong with the rule; undefined when it is valid or missing. */
  readonly fault: string | undefined;
  /** Undefined when the method has none, or one with a fault. */
  readonly rule: DeclaredRule | undefined;
}

/** Field numbers of google/protobuf/descriptor.proto. */
const FILE = 1;
const FILE_PACKAGE = 2;
const FILE_SERVICE = 6;
const NAME = 1;
const SERVICE_METHOD = 2;
const METHOD_OPTIONS = 4;

/** The method option `portcullis.access.v1.rule`. */
const RULE = 52_473;

/** The fields of portcullis.access.v1.Rule that this version knows, with the greatest value of each enum. */
const RULE_FIELDS = {
  public: 1,
  scopes: 2,
  roles: 3,
  caller: 4,
  maxAuthAge: 5,
  onStale: 6,
  maxRequestBytes: 7,
} as const;
const ENUM_MAX = 2n;
const CALLER_SERVICE = 2n;

/** Packages of services that have no rules, because every server has them. */
const STANDARD_PACKAGES = /^(google|grpc)(\.|$)/;

/**
 * The methods of all services of a descriptor set, apart from those of Google's and gRPC's own packages.
 *
 * @throws ServiceError FIELD_INVALID when it is too large or not a descriptor set
 */
export function methodsOf(field: string, bytes: Uint8Array): readonly DeclaredMethod[] {
  if (bytes.length > DESCRIPTOR_SET_BYTES_MAX) {
    throw invalidField(field, `must have at most ${DESCRIPTOR_SET_BYTES_MAX} bytes, got ${bytes.length}`);
  }
  const methods: DeclaredMethod[] = [];
  try {
    for (const file of messagesIn(bytes, FILE)) {
      const packageName = textIn(file, FILE_PACKAGE);
      if (STANDARD_PACKAGES.test(packageName)) continue;
      for (const service of messagesIn(file, FILE_SERVICE)) {
        const name = [packageName, textIn(service, NAME)].filter((part) => part !== '').join('.');
        for (const method of messagesIn(service, SERVICE_METHOD)) {
          methods.push(methodOf(`/${name}/${textIn(method, NAME)}`, method));
        }
      }
    }
  } catch (error) {
    if (!(error instanceof MalformedError)) throw error;
    throw invalidField(field, 'must be a serialized google.protobuf.FileDescriptorSet');
  }
  if (methods.length > METHODS_MAX) throw invalidField(field, `must have at most ${METHODS_MAX} methods`);
  return methods;
}

function methodOf(path: string, method: Uint8Array): DeclaredMethod {
  // Of an option that is set twice, the parts add up.
  const parts = messagesIn(method, METHOD_OPTIONS).flatMap((options) => messagesIn(options, RULE));
  const rule = parts.length === 0 ? undefined : ruleOf(parts);
  return typeof rule === 'string' ? { path, fault: rule, rule: undefined } : { path, fault: undefined, rule };
}

/** The rule, or what is wrong with it. */
function ruleOf(parts: readonly Uint8Array[]): DeclaredRule | string {
  const scopes: string[] = [];
  const roles: string[] = [];
  const numbers = new Map<number, bigint>();
  let hasAge = false;
  for (const { number, value } of parts.flatMap((part) => [...fieldsIn(part)])) {
    const isText = number === RULE_FIELDS.scopes || number === RULE_FIELDS.roles;
    if (isText || number === RULE_FIELDS.maxAuthAge) {
      if (typeof value === 'bigint') throw new MalformedError();
      if (isText) (number === RULE_FIELDS.scopes ? scopes : roles).push(decode(value));
      else hasAge = true;
    } else if (Object.values<number>(RULE_FIELDS).includes(number)) {
      if (typeof value !== 'bigint') throw new MalformedError();
      numbers.set(number, value);
    } else {
      return `has a rule of a newer version: field ${number} is not known`;
    }
  }
  const caller = numbers.get(RULE_FIELDS.caller) ?? 0n;
  const onStale = numbers.get(RULE_FIELDS.onStale) ?? 0n;
  if (caller > ENUM_MAX || onStale > ENUM_MAX) {
    return 'has a rule of a newer version: a value of caller or on_stale is not known';
  }
  const isPublic = (numbers.get(RULE_FIELDS.public) ?? 0n) !== 0n;
  const hasConditions = scopes.length + roles.length > 0 || hasAge || caller !== 0n || onStale !== 0n;
  if (isPublic && hasConditions) return 'is public and has other conditions';
  return { isPublic, scopes, roles, forServices: caller === CALLER_SERVICE };
}

/** The bytes are not what they should be. */
class MalformedError extends Error {}

interface Field {
  readonly number: number;
  /** A number, or the bytes of a text or message. */
  readonly value: bigint | Uint8Array;
}

function messagesIn(message: Uint8Array, number: number): readonly Uint8Array[] {
  const found: Uint8Array[] = [];
  for (const field of fieldsIn(message)) {
    if (field.number !== number) continue;
    if (typeof field.value === 'bigint') throw new MalformedError();
    found.push(field.value);
  }
  return found;
}

/** A text field; empty when it is not set. */
function textIn(message: Uint8Array, number: number): string {
  const last = messagesIn(message, number).at(-1);
  return last === undefined ? '' : decode(last);
}

function decode(bytes: Uint8Array): string {
  try {
    return new TextDecoder('utf-8', { fatal: true }).decode(bytes);
  } catch (cause) {
    throw new MalformedError('a text is not UTF-8', { cause });
  }
}

/** The fields of a message in the wire format of protobuf. Descriptors have no groups. */
function* fieldsIn(message: Uint8Array): Iterable<Field> {
  let at = 0;
  const varint = (): bigint => {
    let value = 0n;
    for (let shift = 0n; shift < 70n; shift += 7n) {
      const byte = message[at++];
      if (byte === undefined) throw new MalformedError();
      value |= BigInt(byte & 0x7f) << shift;
      if (byte < 0x80) return BigInt.asUintN(64, value);
    }
    throw new MalformedError();
  };
  const bytes = (length: bigint): Uint8Array => {
    if (length > BigInt(message.length - at)) throw new MalformedError();
    const from = at;
    at += Number(length);
    return message.subarray(from, at);
  };
  while (at < message.length) {
    const key = varint();
    const number = Number(key >> 3n);
    if (number < 1 || number > FIELD_NUMBER_MAX) throw new MalformedError();
    switch (key & 7n) {
      case 0n:
        yield { number, value: varint() };
        break;
      case 1n:
        yield { number, value: bytes(8n) };
        break;
      case 2n:
        yield { number, value: bytes(varint()) };
        break;
      case 5n:
        yield { number, value: bytes(4n) };
        break;
      default:
        throw new MalformedError();
    }
  }
}

/** The greatest number of a field in protobuf. */
const FIELD_NUMBER_MAX = 2 ** 29 - 1;
