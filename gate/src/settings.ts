/** The settings of a gate: read completely, with all faults together, before anything opens. */

import { createPrivateKey, type KeyObject } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { parseEnv } from 'node:util';
import type { GuardLimits } from '@portcullis/guard';
import { parse as parseYaml } from 'yaml';
import type { z } from 'zod';
import type { Address } from './addresses.js';
import type { FlagName } from './flags.js';
import { exposureIn, goodOf, missingIn, SETTINGS_SHAPE, type Values } from './settings-shape.js';
import { readTlsFiles, type TlsFiles } from './tls-files.js';

/** Texts of settings, by name, as flags have them. */
export type RawSettings = { readonly [Name in FlagName]?: string | undefined };

/** Where the gate takes the service's revocations from. */
interface AuthSettings {
  readonly issuer: string;
  readonly audience: string;
  readonly address: string;
  readonly tls: TlsFiles | undefined;
  readonly clientId: string;
  readonly clientKey: KeyObject;
  readonly nats: NatsSettings | undefined;
}

/** The broker. */
interface NatsSettings {
  readonly url: string;
  readonly files: { readonly caFile?: string; readonly nkeyFile?: string; readonly credsFile?: string };
}

/** Where callers connect. */
export interface ListenSettings {
  readonly address: Address;
  readonly tls: TlsFiles | undefined;
  readonly clientAuth: 'off' | 'request' | 'require';
}

/** The server behind the gate. */
export interface UpstreamSettings {
  readonly address: Address;
  readonly tls: TlsFiles | undefined;
  readonly serverName: string;
  /** Whether an upstream that others can reach stops the start. */
  readonly exposed: 'refuse' | 'warn';
}

/** The methods and their rules. */
export interface RulesSettings {
  readonly descriptors: string | undefined;
  readonly file: string | undefined;
  readonly publicMethods: readonly string[];
  readonly health: 'public' | 'closed';
  readonly reflection: 'closed' | 'public' | 'authenticated';
}

/** What the upstream learns about the caller. */
interface IdentitySettings {
  readonly mode: 'headers' | 'signed' | 'off';
  readonly token: 'strip' | 'forward';
  readonly key: KeyObject | undefined;
  readonly issuer: string;
  readonly audience: string;
}

/** The settings of a gate. */
export interface GateSettings {
  readonly auth: AuthSettings;
  readonly listen: ListenSettings | undefined;
  readonly upstream: UpstreamSettings | undefined;
  readonly rules: RulesSettings;
  readonly identity: IdentitySettings;
  readonly plaintext: 'loopback' | 'allow';
  readonly limits: Partial<GuardLimits>;
  readonly extAuthz: { readonly address: Address; readonly tls: TlsFiles | undefined } | undefined;
  readonly httpCheck:
    | {
        readonly address: Address;
        readonly pathHeader: string;
        readonly addressHeader: string;
        readonly certHeader: string | undefined;
      }
    | undefined;
  readonly healthListen: Address | undefined;
  readonly opsListen: Address | undefined;
  readonly workers: number;
  readonly drainMs: number;
  readonly logLevel: string;
}

/** Everything that is wrong with the settings, one line each, for the person at the terminal. */
export class SettingsError extends Error {
  readonly faults: readonly string[];

  constructor(faults: readonly string[]) {
    super(['The settings are not valid:', ...faults.map((fault) => `  ${fault}`)].join('\n'));
    this.name = 'SettingsError';
    this.faults = faults;
  }
}

/** Maximum size of a configuration file, in bytes. */
const CONFIG_BYTES_MAX = 1024 * 1024;

/** What `portcullis service add --env` writes, and the settings that it stands for. */
const SERVICE_VARIABLES: Readonly<Record<string, FlagName>> = {
  ISSUER: 'issuer',
  AUTH_ADDRESS: 'auth',
  AUTH_CA_FILE: 'auth-ca',
  CLIENT_ID: 'client-id',
  CLIENT_KEY_FILE: 'client-key',
  NATS_URL: 'nats',
  NATS_NKEY_FILE: 'nats-nkey',
};

/**
 * Reads settings: those of the flags, then those of the configuration file, then those of the service's settings file.
 *
 * @param configFile - YAML or JSON with the names of the flags, and `limits`
 * @throws SettingsError with every fault
 */
export function readSettings(flags: RawSettings, configFile?: string): GateSettings {
  const faults: string[] = [];
  const file = configFile === undefined ? {} : readConfigFile(configFile, faults);
  const given = Object.fromEntries(Object.entries(flags).filter(([, value]) => value !== undefined));
  const merged: Record<string, unknown> = { ...file, ...given };
  const service = serviceSettings(merged['service'], faults);
  const parsed = SETTINGS_SHAPE.safeParse({ ...service, ...merged });
  if (!parsed.success) faults.push(...parsed.error.issues.map(describeIssue));
  // Faults between settings are looked for in those that are good by themselves.
  const values = parsed.success ? parsed.data : goodOf({ ...service, ...merged });
  faults.push(...missingIn(values, merged), ...exposureIn(values));
  const settings = settingsOf(values, faults);
  if (faults.length > 0 || settings === undefined) throw new SettingsError([...new Set(faults)]);
  return settings;
}

function readConfigFile(file: string, faults: string[]): Record<string, unknown> {
  try {
    const text = readText(file);
    const read: unknown = parseYaml(text);
    if (read === null) return {};
    if (typeof read === 'object' && !Array.isArray(read)) return { ...read };
    faults.push(`config must be a table of settings: ${file}`);
  } catch (error) {
    faults.push(`config cannot be read: ${file} (${reasonOf(error)})`);
  }
  return {};
}

function serviceSettings(file: unknown, faults: string[]): Record<string, string> {
  if (typeof file !== 'string') return {};
  try {
    const variables = Object.entries(parseEnv(readText(file)));
    return Object.fromEntries(
      variables.flatMap(([variable, value]) => {
        const known = Object.hasOwn(SERVICE_VARIABLES, variable) ? SERVICE_VARIABLES[variable] : undefined;
        return known === undefined || value === undefined ? [] : [[known, value]];
      }),
    );
  } catch (error) {
    faults.push(`service cannot be read: ${file} (${reasonOf(error)})`);
    return {};
  }
}

function readText(file: string): string {
  const bytes = readFileSync(file);
  if (bytes.length > CONFIG_BYTES_MAX) throw new Error(`more than ${CONFIG_BYTES_MAX} bytes`);
  return bytes.toString('utf8');
}

/** The reason without anything of the content, which may have secrets. */
function reasonOf(error: unknown): string {
  if (error instanceof Error && 'code' in error && typeof error.code === 'string') return error.code;
  return error instanceof Error && error.message.startsWith('more than') ? error.message : 'not valid YAML';
}

function describeIssue(issue: z.core.$ZodIssue): string {
  if (issue.code === 'unrecognized_keys') return issue.keys.map((key) => `${key} is no setting`).join('\n  ');
  const message = issue.message.replace(/^Invalid option: expected one of /, 'must be one of ');
  return `${issue.path.join('.')} ${message.replace(/^Invalid input: expected /, 'must be ')}`;
}

/** @returns undefined when a key is missing; its fault is told then */
function settingsOf(values: Values, faults: string[]): GateSettings | undefined {
  const tls = (what: string, files: TlsFiles): TlsFiles | undefined => {
    if (files.cert === undefined && files.key === undefined && files.ca === undefined) return undefined;
    faults.push(...readTlsFiles(files).faults.map(({ file, problem }) => `${what}-${file} ${problem}`));
    return files;
  };
  const clientId = values['client-id'] ?? '';
  const audience = values.audience ?? clientId;
  const clientKey =
    values['client-key'] === undefined ? undefined : keyIn('client-key', values['client-key'], faults);
  const identityKey =
    values['identity-key'] === undefined ? undefined : keyIn('identity-key', values['identity-key'], faults);
  if (identityKey !== undefined && identityKey.asymmetricKeyType !== 'ed25519') {
    faults.push('identity-key must be an Ed25519 key');
  }
  if (clientKey === undefined) return undefined;
  return {
    auth: {
      issuer: values.issuer ?? '',
      audience,
      address: values.auth ?? '',
      tls: tls('auth', { cert: values['auth-cert'], key: values['auth-key'], ca: values['auth-ca'] }),
      clientId,
      clientKey,
      nats: natsOf(values),
    },
    listen: values.listen && {
      address: values.listen,
      tls: tls('tls', { cert: values['tls-cert'], key: values['tls-key'], ca: values['client-ca'] }),
      clientAuth: values['client-auth'],
    },
    upstream: values.upstream && {
      address: values.upstream,
      tls: tls('upstream', {
        cert: values['upstream-cert'],
        key: values['upstream-key'],
        ca: values['upstream-ca'],
      }),
      serverName:
        values['upstream-name'] ?? (values.upstream.kind === 'tcp' ? values.upstream.host : 'localhost'),
      exposed: values['upstream-exposed'],
    },
    rules: {
      descriptors: values.descriptors,
      file: values.rules,
      publicMethods: values.public,
      health: values.health,
      reflection: values.reflection,
    },
    identity: {
      mode: values.identity,
      token: values.token,
      key: identityKey,
      issuer: values['identity-issuer'],
      audience: values['identity-audience'] ?? audience,
    },
    plaintext: values.plaintext,
    limits: values.limits,
    extAuthz: values['ext-authz'] && {
      address: values['ext-authz'],
      tls: tls('ext-authz', {
        cert: values['ext-authz-cert'],
        key: values['ext-authz-key'],
        ca: values['ext-authz-client-ca'],
      }),
    },
    httpCheck: values['http-check'] && {
      address: values['http-check'],
      pathHeader: values['http-check-path-header'],
      addressHeader: values['http-check-address-header'],
      certHeader: values['http-check-cert-header'],
    },
    healthListen: values['health-listen'],
    opsListen: values['ops-listen'],
    workers: values.workers,
    drainMs: values['drain-seconds'] * 1000,
    logLevel: values['log-level'],
  };
}

function natsOf(values: Values): NatsSettings | undefined {
  const { nats: url, 'nats-ca': caFile, 'nats-nkey': nkeyFile, 'nats-creds': credsFile } = values;
  if (url === undefined) return undefined;
  return {
    url,
    files: {
      ...(caFile !== undefined && { caFile }),
      ...(nkeyFile !== undefined && { nkeyFile }),
      ...(credsFile !== undefined && { credsFile }),
    },
  };
}

function keyIn(setting: FlagName, file: string, faults: string[]): KeyObject | undefined {
  try {
    return createPrivateKey(readFileSync(file));
  } catch {
    faults.push(`${setting} names no private key in PEM that can be read without a passphrase: ${file}`);
    return undefined;
  }
}
