/** Configuration from the environment: each variable is described once, and all faults are reported in one message. */

import { createPrivateKey, type KeyObject } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { isIP } from 'node:net';
import { OperatorError } from '../host/operator-error.js';

/** The longest file that a variable may point to. */
export const CONFIGURATION_FILE_BYTES_MAX = 64 * 1024;

const PREFIX = 'PORTCULLIS_';
const FILE_SUFFIX = '_FILE';

/** The rule for one variable; made by the functions below. */
export interface EnvironmentVariable<T> {
  /** Turns the text (undefined when the variable is unset or empty) into the value. */
  readonly parse: (text: string | undefined) => Parsed<T>;
  /** A secret may also come from the file that `NAME_FILE` names, and its text is never repeated. */
  readonly secret: boolean;
}

/** A value, or the end of a sentence that begins with the variable's name and never repeats a secret. */
type Parsed<T> = { readonly value: T } | { readonly problem: string };

/** Variables by name. */
export type EnvironmentShape = { readonly [variable: string]: EnvironmentVariable<unknown> };

/** The values that a shape yields, by variable name. */
export type EnvironmentValues<Shape extends EnvironmentShape> = {
  readonly [Variable in keyof Shape]: Shape[Variable] extends EnvironmentVariable<infer T> ? T : never;
};

/** One variable and what is wrong with it. */
export interface ConfigurationFault {
  readonly variable: string;
  /** The end of a sentence that begins with the variable's name; never repeats a secret. */
  readonly problem: string;
}

/** Everything that is wrong with the configuration, in one message meant for the operator. */
export class ConfigurationError extends OperatorError {
  readonly faults: readonly ConfigurationFault[];

  constructor(faults: readonly ConfigurationFault[]) {
    const lines = faults.map(({ variable, problem }) => `  ${variable} ${problem}`);
    super(['The configuration is not valid:', ...lines].join('\n'));
    this.name = 'ConfigurationError';
    this.faults = faults;
  }
}

/**
 * Reads the variables of a shape. `check` may find faults between variables; it sees the values that were good.
 * An empty variable counts as unset, and a variable with our prefix that the shape does not know is a fault.
 *
 * @throws ConfigurationError with all faults together
 */
export function parseEnvironment<Shape extends EnvironmentShape>(
  shape: Shape,
  env: NodeJS.ProcessEnv,
  check: (values: Partial<EnvironmentValues<Shape>>) => readonly ConfigurationFault[] = () => [],
): EnvironmentValues<Shape> {
  const faults: ConfigurationFault[] = [];
  const values: Record<string, unknown> = {};
  for (const [variable, description] of Object.entries(shape)) {
    const read = readVariable(variable, description, env);
    if ('problem' in read) faults.push(read);
    else values[variable] = read.value;
  }
  faults.push(...unknownVariables(shape, env), ...check(values as Partial<EnvironmentValues<Shape>>));
  if (faults.length > 0) throw new ConfigurationError(faults);
  return Object.freeze(values) as EnvironmentValues<Shape>;
}

/** Any text that is not empty, optionally limited to a pattern that `description` puts into words. */
export function text(options: { pattern?: RegExp; description?: string } = {}): EnvironmentVariable<string> {
  const { pattern = /^[\s\S]+$/, description = 'text' } = options;
  return required((given) => (pattern.test(given) ? given : undefined), `must be ${description}`);
}

/** One of a few words. */
export function oneOf<const Word extends string>(words: readonly Word[]): EnvironmentVariable<Word> {
  return required((given) => words.find((word) => word === given), `must be one of ${words.join(', ')}`);
}

/** Some of a few words, with commas between them, or `none`. */
export function someOf<const Word extends string>(
  words: readonly Word[],
): EnvironmentVariable<readonly Word[]> {
  const parse = (given: string) => {
    if (given === 'none') return [];
    const named = given.split(',').map((part) => words.find((word) => word === part.trim()));
    const known = named.filter((word) => word !== undefined);
    return known.length === named.length ? [...new Set(known)] : undefined;
  };
  return required(parse, `must be none, or some of ${words.join(', ')} with commas between them`);
}

/** A switch: `on` or `off`. */
export function onOff(): EnvironmentVariable<boolean> {
  const parse = (given: string) => (given === 'on' ? true : given === 'off' ? false : undefined);
  return required(parse, 'must be on or off');
}

/** A level of the log. */
export function logLevel(): EnvironmentVariable<LogLevel> {
  return oneOf(['trace', 'debug', 'info', 'warn', 'error', 'fatal', 'silent']);
}

/** The levels of the log, the most verbose first. */
export type LogLevel = 'trace' | 'debug' | 'info' | 'warn' | 'error' | 'fatal' | 'silent';

/** A whole number within limits; `unit` completes the sentence that reports a fault. */
export function wholeNumber(options: {
  min: number;
  max: number;
  unit?: string;
}): EnvironmentVariable<number> {
  const { min, max, unit } = options;
  const parse = (given: string) => {
    const number = /^(0|[1-9][0-9]{0,14})$/.test(given) ? Number(given) : Number.NaN;
    return number >= min && number <= max ? number : undefined;
  };
  const what = unit === undefined ? 'a whole number' : `a whole number of ${unit}`;
  return required(parse, `must be ${what} from ${min} to ${max}`);
}

/** Milliseconds within limits. */
export function milliseconds(options: { min: number; max: number }): EnvironmentVariable<number> {
  return wholeNumber({ ...options, unit: 'milliseconds' });
}

/** Seconds within limits. */
export function seconds(options: { min: number; max: number }): EnvironmentVariable<number> {
  return wholeNumber({ ...options, unit: 'seconds' });
}

/** Where to listen or to connect, as `HOST:PORT`; an IPv6 address stands in brackets. */
export function hostPort(): EnvironmentVariable<string> {
  const parse = (given: string) => (parseHostPort(given) === undefined ? undefined : given);
  return required(parse, 'must be HOST:PORT, such as 127.0.0.1:50051');
}

/** Several addresses with commas between them; at least one, none twice. */
export function hostPorts(): EnvironmentVariable<readonly string[]> {
  const parse = (given: string) => {
    const all = given.split(',').map((part) => part.trim());
    const good = all.every((part) => parseHostPort(part) !== undefined) && new Set(all).size === all.length;
    return good ? all : undefined;
  };
  return required(parse, 'must be HOST:PORT, or several with commas between them and none twice');
}

/** Where a server is reached: a target for grpc-js, and the addresses in it. */
export interface ServerTarget {
  readonly target: string;
  /** `HOST:PORT` each. */
  readonly addresses: readonly string[];
}

const DNS_SCHEME = 'dns:///';

/**
 * The addresses of one server: a name, which may have several addresses, or a list of IP addresses. grpc-js takes a list
 * only of addresses of one family.
 */
export function serverTarget(): EnvironmentVariable<ServerTarget> {
  const parse = (given: string): ServerTarget | undefined => {
    const name = given.startsWith(DNS_SCHEME) ? given.slice(DNS_SCHEME.length) : given;
    if (parseHostPort(name) !== undefined) return { target: given, addresses: [name] };
    const addresses = given.split(',').map((part) => part.trim());
    const families = new Set(addresses.map((address) => isIP(parseHostPort(address)?.host ?? '')));
    if (families.size > 1 || families.has(0) || new Set(addresses).size < addresses.length) return undefined;
    return { target: `${families.has(4) ? 'ipv4' : 'ipv6'}:${addresses.join(',')}`, addresses };
  };
  const problem =
    'must be HOST:PORT or dns:///HOST:PORT, or several IP addresses with ports, all IPv4 or all IPv6, with commas between them and none twice';
  return required(parse, problem);
}

/** A URL with one of the given schemes, kept as written, because a normalised issuer would be another issuer. */
export function url(options: { protocols: readonly string[] }): EnvironmentVariable<string> {
  const { protocols } = options;
  const parse = (given: string) => (protocols.includes(protocolOf(given) ?? '') ? given : undefined);
  return required(parse, `must be a URL that begins with ${protocols.map((one) => `${one}//`).join(' or ')}`);
}

/** Exactly so many bytes, written in base64url without padding. */
export function base64urlBytes(length: number): EnvironmentVariable<Buffer> {
  const parse = (given: string) => {
    const bytes = Buffer.from(given, 'base64url');
    return bytes.length === length && bytes.toString('base64url') === given ? bytes : undefined;
  };
  return required(parse, `must be ${length} bytes in base64url`);
}

/** The contents of the file that the variable names. Neither the contents nor the name are repeated in a fault. */
export function fileContents(): EnvironmentVariable<string> {
  return {
    secret: false,
    parse: (path) => {
      if (path === undefined) return REQUIRED;
      const read = readConfigurationFile(path);
      return 'problem' in read ? read : { value: read.contents };
    },
  };
}

/** The private key in the file that the variable names. */
export function privateKeyFile(): EnvironmentVariable<KeyObject> {
  const file = fileContents();
  return {
    secret: false,
    parse: (path) => {
      const read = file.parse(path);
      return 'problem' in read ? read : parsePrivateKey(read.value);
    },
  };
}

function parsePrivateKey(pem: string): Parsed<KeyObject> {
  try {
    return { value: createPrivateKey(pem) };
  } catch {
    return { problem: 'must name a file with a private key in PKCS #8 PEM' };
  }
}

/** The same variable as a secret: `NAME_FILE` is read as well, and faults never repeat what was given. */
export function secret<T>(variable: EnvironmentVariable<T>): EnvironmentVariable<T> {
  return { ...variable, secret: true };
}

/** The same variable, undefined when unset. */
export function optional<T>(variable: EnvironmentVariable<T>): EnvironmentVariable<T | undefined> {
  return withDefault<T | undefined>(variable, undefined);
}

/** The same variable, with a value for when it is unset. */
export function withDefault<T>(
  { parse, secret }: EnvironmentVariable<T>,
  fallback: T,
): EnvironmentVariable<T> {
  return { secret, parse: (text) => (text === undefined ? { value: fallback } : parse(text)) };
}

/** The host (without brackets) and the port of `HOST:PORT`, or undefined when the text is something else. */
export function parseHostPort(given: string): { host: string; port: number } | undefined {
  const match = /^(?:\[([0-9A-Fa-f:.]+)\]|([A-Za-z0-9._-]+)):([0-9]{1,5})$/.exec(given);
  const host = match?.[1] ?? match?.[2];
  const port = Number(match?.[3]);
  return host === undefined || port > 65_535 ? undefined : { host, port };
}

/** Whether `HOST:PORT` stays on this machine, so that plaintext is no risk. */
export function isLoopback(address: string): boolean {
  const host = parseHostPort(address)?.host.toLowerCase();
  if (host === undefined) return false;
  return host === 'localhost' || host === '::1' || /^127\.[0-9]{1,3}\.[0-9]{1,3}\.[0-9]{1,3}$/.test(host);
}

function readVariable(
  variable: string,
  { parse, secret }: EnvironmentVariable<unknown>,
  env: NodeJS.ProcessEnv,
): { value: unknown } | ConfigurationFault {
  const given = givenText(variable, secret, env);
  if ('problem' in given) return given;
  const parsed = parse(given.text);
  if ('value' in parsed) return parsed;
  const { problem } = parsed;
  // A parser from elsewhere may quote what it was given; a secret must not reach the terminal that way.
  const quotes = secret && given.text !== undefined && problem.includes(given.text);
  return { variable: given.variable, problem: quotes ? 'is not valid' : problem };
}

function givenText(
  variable: string,
  secret: boolean,
  env: NodeJS.ProcessEnv,
): { variable: string; text: string | undefined } | ConfigurationFault {
  const direct = env[variable] || undefined;
  const fileVariable = `${variable}${FILE_SUFFIX}`;
  const file = secret ? env[fileVariable] || undefined : undefined;
  if (file === undefined) return { variable, text: direct };
  if (direct !== undefined) return { variable, problem: `and ${fileVariable} are both set: keep one` };
  const read = readConfigurationFile(file);
  if ('problem' in read) return { variable: fileVariable, problem: read.problem };
  return { variable: fileVariable, text: read.contents.trim() || undefined };
}

function readConfigurationFile(path: string): { contents: string } | { problem: string } {
  // The path is not repeated: an operator who confuses NAME with NAME_FILE has put the secret itself there.
  try {
    const contents = readFileSync(path);
    if (contents.length > CONFIGURATION_FILE_BYTES_MAX) {
      return { problem: `names a file of more than ${CONFIGURATION_FILE_BYTES_MAX} bytes` };
    }
    if (contents.length === 0) return { problem: 'names an empty file' };
    return { contents: contents.toString('utf8') };
  } catch (error) {
    const code = error instanceof Error && 'code' in error ? String(error.code) : 'unknown error';
    return { problem: `names a file that cannot be read (${code})` };
  }
}

function unknownVariables(shape: EnvironmentShape, env: NodeJS.ProcessEnv): ConfigurationFault[] {
  const known = new Set(Object.keys(shape));
  for (const [variable, { secret }] of Object.entries(shape))
    if (secret) known.add(`${variable}${FILE_SUFFIX}`);
  return Object.keys(env)
    .filter((variable) => variable.startsWith(PREFIX) && !known.has(variable))
    .sort()
    .map((variable) => ({ variable, problem: 'is not a variable of this service' }));
}

const REQUIRED = { problem: 'is required' } as const;

function required<T>(parse: (given: string) => T | undefined, problem: string): EnvironmentVariable<T> {
  return {
    secret: false,
    parse: (given) => {
      if (given === undefined) return REQUIRED;
      const value = parse(given);
      return value === undefined ? { problem } : { value };
    },
  };
}

function protocolOf(given: string): string | undefined {
  return URL.canParse(given) ? new URL(given).protocol : undefined;
}
