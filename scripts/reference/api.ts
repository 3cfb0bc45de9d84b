/** The reference of the gRPC API: one page for each package, from the comments and access rules of the `.proto` files. */

import {
  createFileRegistry,
  type DescEnum,
  type DescExtension,
  type DescField,
  type DescFile,
  type DescMessage,
  type DescMethod,
  type DescService,
  type FileRegistry,
  fromBinary,
  getExtension,
  hasExtension,
  isMessage,
  ScalarType,
  toJson,
} from '@bufbuild/protobuf';
import { FileDescriptorSetSchema } from '@bufbuild/protobuf/wkt';

/** The packages that are described. The others are copies of their authors' files. */
const DESCRIBED = /^(?:auth|inventory|payment|portcullis)\./;

/** The option with the access rule of a method. */
const RULE = 'portcullis.access.v1.rule';

/** Field numbers in `google/protobuf/descriptor.proto`, of which the paths of comments consist. */
const IN_FILE = { message: 4, enum: 5, service: 6, extension: 7, syntax: 12 };
const IN_MESSAGE = { field: 2, message: 3, enum: 4 };
const IN_ENUM = { value: 2 };
const IN_SERVICE = { method: 2 };

/** An access rule as JSON. */
interface Rule {
  readonly public?: boolean;
  readonly scopes?: readonly string[];
  readonly roles?: readonly string[];
  readonly caller?: string;
  readonly maxAuthAge?: string;
  readonly onStale?: string;
  readonly maxRequestBytes?: number;
}

/** What the pages are made from. */
interface Schema {
  readonly registry: FileRegistry;
  readonly rule: DescExtension;
}

/**
 * The pages by file name; README.md is the index.
 *
 * @param descriptorSet - a `FileDescriptorSet` with source info
 * @throws Error when something has no comment, or two headings of a page have one anchor
 */
export function apiPages(descriptorSet: Uint8Array): Map<string, string> {
  const registry = createFileRegistry(fromBinary(FileDescriptorSetSchema, descriptorSet));
  const rule = registry.getExtension(RULE);
  if (rule === undefined) throw new Error(`the schema has no option ${RULE}`);
  const files = [...registry.files].filter(({ proto }) => DESCRIBED.test(proto.package));
  const packages = [...new Set(files.map(({ proto }) => proto.package))].sort();
  const filesOf = (name: string): DescFile[] =>
    files.filter(({ proto }) => proto.package === name).sort((a, b) => a.name.localeCompare(b.name));
  const pages = packages.map((name): [string, string] => [
    `${name}.md`,
    packagePage(name, filesOf(name), { registry, rule }),
  ]);
  return new Map([['README.md', indexPage(packages.map((name) => [name, filesOf(name)]))], ...pages]);
}

function indexPage(packages: readonly (readonly [string, readonly DescFile[]])[]): string {
  const rows = packages.flatMap(([name, files]) => {
    const services = files.flatMap((file) => file.services);
    if (services.length === 0) {
      return [`| [${name}](${name}.md) | | ${cell(files.map(fileComment).join(' '))} |`];
    }
    return services.map(
      (service) =>
        `| [${name}](${name}.md) | [${service.name}](${name}.md#${anchor(service.name)}) | ${cell(commentOf(service))} |`,
    );
  });
  return paragraphs([
    '# The gRPC API',
    NOTE,
    'One page for each package. A service of your own may import the files of `portcullis.*`, which come with the library.',
    ['| package | service | |', '| --- | --- | --- |', ...rows].join('\n'),
    'Every error has a [reason](../errors.md). Lists take `page_size` and `page_token`, and return `next_page_token`. A ' +
      '`request_id` makes a request repeatable: the same id with the same content is carried out once.',
  ]);
}

const NOTE = '_Generated from the `.proto` files by `npm run generate`. Change the comments there._';

function packagePage(name: string, files: readonly DescFile[], schema: Schema): string {
  const messages = files.flatMap(({ messages: top }) => top.flatMap(withNested));
  const enums = [
    ...files.flatMap((file) => file.enums),
    ...messages.flatMap(({ nestedEnums }) => nestedEnums),
  ];
  const services = files.flatMap((file) => file.services);
  const names = [
    ...services.flatMap((service) => [service.name, ...service.methods.map((method) => method.name)]),
    ...messages.map(localName),
    ...enums.map(localName),
  ].map(anchor);
  const twice = names.find((candidate, index) => names.indexOf(candidate) !== index);
  if (twice !== undefined) throw new Error(`${name} has two headings ${twice}`);
  return paragraphs([
    `# ${name}`,
    NOTE,
    ...files.map(fileComment),
    ...services.flatMap((service) => serviceParts(service, schema)),
    ...(messages.length === 0 ? [] : ['## Messages']),
    ...byName(messages).flatMap(messageParts),
    ...(enums.length === 0 ? [] : ['## Enums']),
    ...byName(enums).flatMap(enumParts),
  ]);
}

function serviceParts(service: DescService, schema: Schema): string[] {
  return [
    `## ${service.name}`,
    commentOf(service),
    ...service.methods.flatMap((method) => [
      `### ${method.name}`,
      `${typeLink(method.input, service.file, isClientStream(method))} → ${typeLink(method.output, service.file, isServerStream(method))}`,
      commentOf(method),
      `Callers: ${callersOf(ruleOf(method, schema))}`,
    ]),
  ];
}

function isClientStream({ methodKind }: DescMethod): boolean {
  return methodKind === 'client_streaming' || methodKind === 'bidi_streaming';
}

function isServerStream({ methodKind }: DescMethod): boolean {
  return methodKind === 'server_streaming' || methodKind === 'bidi_streaming';
}

function ruleOf(method: DescMethod, { registry, rule }: Schema): Rule {
  const { options } = method.proto;
  if (options === undefined || !hasExtension(options, rule)) throw new Error(`${method} has no access rule`);
  const value: unknown = getExtension(options, rule);
  if (rule.message === undefined || !isMessage(value, rule.message)) throw new Error(`${RULE} is no message`);
  return toJson(rule.message, value, { registry }) as Rule;
}

/** Who may call a method, in words. */
function callersOf(rule: Rule): string {
  if (rule.public === true) return 'anyone, without a token.';
  const { scopes = [], roles = [], caller, maxAuthAge, onStale, maxRequestBytes } = rule;
  const kind = { CALLER_USER: 'users', CALLER_SERVICE: 'services' }[caller ?? ''] ?? 'users and services';
  const needed = [
    ...(scopes.length > 0 ? [`the scope${scopes.length === 1 ? '' : 's'} ${listed(scopes)}`] : []),
    ...(roles.length > 0 ? [`${roles.length === 1 ? 'the role' : 'one of the roles'} ${listed(roles)}`] : []),
    ...(maxAuthAge === undefined ? [] : [`a login at most ${maxAuthAge.replace('s', ' s')} ago`]),
  ];
  return [
    `${kind}${needed.length === 0 ? '' : ` with ${needed.join(' and ')}`}`,
    ...(onStale === 'ON_STALE_ALLOW' ? ['also while the revocation list is stale'] : []),
    ...(maxRequestBytes === undefined ? [] : [`requests of at most ${maxRequestBytes} bytes`]),
  ]
    .join('; ')
    .concat('.');
}

function messageParts(message: DescMessage): string[] {
  const rows = message.fields.map(
    (field) =>
      `| \`${field.name}\` | ${fieldType(field)} | ${cell(`${oneofOf(field)}${commentOf(field)}`)} |`,
  );
  return [
    `### ${localName(message)}`,
    commentOf(message),
    rows.length === 0
      ? 'No fields.'
      : ['| field | type | meaning |', '| --- | --- | --- |', ...rows].join('\n'),
  ];
}

function enumParts(type: DescEnum): string[] {
  const rows = type.values.map(
    (value) =>
      `| \`${value.name}\` | ${value.number} | ${cell(commentAt(type.file, [...pathOf(type), IN_ENUM.value, type.values.indexOf(value)], value.name))} |`,
  );
  return [
    `### ${localName(type)}`,
    commentOf(type),
    ['| value | number | meaning |', '| --- | --- | --- |', ...rows].join('\n'),
  ];
}

function oneofOf({ oneof }: DescField): string {
  return oneof === undefined ? '' : `One of \`${oneof.name}\`. `;
}

function fieldType(field: DescField): string {
  const { file } = field.parent;
  switch (field.fieldKind) {
    case 'message':
      return typeLink(field.message, file);
    case 'enum':
      return typeLink(field.enum, file);
    case 'scalar':
      return `${field.proto.proto3Optional ? 'optional ' : ''}${scalarName(field.scalar)}`;
    case 'list':
      return `repeated ${field.listKind === 'scalar' ? scalarName(field.scalar) : typeLink(field.listKind === 'message' ? field.message : field.enum, file)}`;
    case 'map':
      return `map of ${scalarName(field.mapKey)} to ${field.mapKind === 'scalar' ? scalarName(field.scalar) : typeLink(field.mapKind === 'message' ? field.message : field.enum, file)}`;
  }
}

function scalarName(scalar: ScalarType): string {
  return ScalarType[scalar].toLowerCase();
}

/** A link to the description of a type, where there is one. */
function typeLink(type: DescMessage | DescEnum, from: DescFile, isStream = false): string {
  const prefix = isStream ? 'stream of ' : '';
  const { package: ofType } = type.file.proto;
  if (!DESCRIBED.test(ofType)) return `${prefix}\`${type.typeName}\``;
  const isHere = ofType === from.proto.package;
  const text = isHere ? localName(type) : type.typeName;
  return `${prefix}[${text}](${isHere ? '' : `${ofType}.md`}#${anchor(localName(type))})`;
}

/** The messages in a message and itself; those that stand for the entries of maps are left out. */
function withNested(message: DescMessage): DescMessage[] {
  return [
    message,
    ...message.nestedMessages.filter(({ proto }) => proto.options?.mapEntry !== true).flatMap(withNested),
  ];
}

/** The name of a type without its package. */
function localName({ typeName, file }: DescMessage | DescEnum): string {
  return typeName.slice(file.proto.package.length + 1);
}

/** The anchor that GitHub gives a heading. */
function anchor(heading: string): string {
  return heading.toLowerCase().replaceAll('.', '');
}

function byName<Type extends DescMessage | DescEnum>(types: readonly Type[]): Type[] {
  return [...types].sort((a, b) => localName(a).localeCompare(localName(b)));
}

function fileComment(file: DescFile): string {
  return commentAt(file, [IN_FILE.syntax], file.name);
}

function commentOf(element: DescService | DescMethod | DescMessage | DescEnum | DescField): string {
  const file = element.kind === 'field' || element.kind === 'rpc' ? element.parent.file : element.file;
  return commentAt(file, pathOf(element), String(element));
}

/** @throws Error when there is no comment */
function commentAt({ proto }: DescFile, path: readonly number[], name: string): string {
  const found = proto.sourceCodeInfo?.location.find(
    (location) => location.path.length === path.length && path.every((part, i) => location.path[i] === part),
  );
  const comment = (found?.leadingComments ?? '').replace(/^ /gm, '').trim();
  if (comment === '') throw new Error(`${name} has no comment`);
  return comment;
}

function pathOf(element: DescService | DescMethod | DescMessage | DescEnum | DescField): number[] {
  switch (element.kind) {
    case 'service':
      return [IN_FILE.service, element.file.services.indexOf(element)];
    case 'rpc':
      return [...pathOf(element.parent), IN_SERVICE.method, element.parent.methods.indexOf(element)];
    case 'field':
      return [...pathOf(element.parent), IN_MESSAGE.field, element.parent.proto.field.indexOf(element.proto)];
    case 'message':
      return element.parent === undefined
        ? [IN_FILE.message, element.file.messages.indexOf(element)]
        : [
            ...pathOf(element.parent),
            IN_MESSAGE.message,
            element.parent.proto.nestedType.indexOf(element.proto),
          ];
    case 'enum':
      return element.parent === undefined
        ? [IN_FILE.enum, element.file.enums.indexOf(element)]
        : [...pathOf(element.parent), IN_MESSAGE.enum, element.parent.nestedEnums.indexOf(element)];
  }
}

function listed(words: readonly string[]): string {
  return words.map((word) => `\`${word}\``).join(', ');
}

/** A text as one cell of a table. */
function cell(text: string): string {
  return text.replace(/\s+/g, ' ').replaceAll('|', '\\|').trim();
}

function paragraphs(parts: readonly string[]): string {
  return `${parts.join('\n\n')}\n`;
}
