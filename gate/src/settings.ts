/** The settings of a gate: read completely, with all faults together, before anything opens. */

import { createPrivateKey, type KeyObject } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { parseEnv } from 'node:util';
import type { GuardLimits, TrustedIssuer } from '@portcullis/guard';
import { type TlsFiles, tlsFaultsOf } from '@portcullis/guard/tls';
import type { Address } from './addresses.js';
import type { FlagName } from './flags.js';
import { trustedIssuersOf } from './issuers-shape.js';
import {
  DESCRIBED_SETTINGS,
  exposureIn,
  goodOf,
  missingIn,
  SETTINGS_SHAPE,
  type Values,
} from './settings-shape.js';
import { shapeFaults } from './shape-faults.js';

import { codeOf, readBytes, readYaml, UnreadableError } from './yaml-file.js';

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
  /** `observe` refuses nothing because of tokens and rules, and reports what `enforce` would refuse. */
  readonly mode: 'enforce' | 'observe';
  readonly limits: Partial<GuardLimits>;
  /** Other issuers whose tokens are accepted. */
  readonly trustedIssuers: readonly TrustedIssuer[];
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
  /** Where the rules would be read, as far as that is known: their faults can be reported as well. */
  readonly rules: RulesSettings | undefined;

  constructor(
    faults: readonly string[],
    { rules, cause }: { readonly rules?: RulesSettings; readonly cause?: unknown } = {},
  ) {
    super(['The settings are not valid:', ...faults.map((fault) => `  ${fault}`)].join('\n'), { cause });
    this.name = 'SettingsError';
    this.faults = faults;
    this.rules = rules;
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
  const all = { ...service, ...merged };
  const parsed = SETTINGS_SHAPE.safeParse(all);
  if (!parsed.success) faults.push(...shapeFaults(parsed.error, all, DESCRIBED_SETTINGS));
  // Faults between settings are looked for in those that are good by themselves.
  const values = parsed.success ? parsed.data : goodOf(all);
  faults.push(...missingIn(values, merged), ...exposureIn(values));
  const settings = settingsOf(values, faults);
  if (faults.length > 0 || settings === undefined)
    throw new SettingsError([...new Set(faults)], { rules: rulesIn(values) });
  return settings;
}

function readConfigFile(file: string, faults: string[]): Record<string, unknown> {
  try {
    const read = readYaml(file, CONFIG_BYTES_MAX);
    if (read === null) return {};
    if (typeof read === 'object' && !Array.isArray(read)) return { ...read };
    faults.push(`config ${file} must be a table of settings`);
  } catch (error) {
    if (!(error instanceof UnreadableError)) throw error;
    faults.push(`config ${file} ${error.message}`);
  }
  return {};
}

function serviceSettings(file: unknown, faults: string[]): Record<string, string> {
  if (typeof file !== 'string') return {};
  try {
    const variables = Object.entries(parseEnv(readBytes(file, CONFIG_BYTES_MAX).toString('utf8')));
    return Object.fromEntries(
      variables.flatMap(([variable, value]) => {
        const known = Object.hasOwn(SERVICE_VARIABLES, variable) ? SERVICE_VARIABLES[variable] : undefined;
        return known === undefined || value === undefined ? [] : [[known, value]];
      }),
    );
  } catch (error) {
    faults.push(`service ${file} ${error instanceof UnreadableError ? error.message : codeOf(error)}`);
    return {};
  }
}

/** The settings that name the files of one TLS connection. */
type TlsNames = Readonly<
  Record<'cert', 'auth-cert' | 'tls-cert' | 'upstream-cert' | 'ext-authz-cert'> &
    Record<'key', 'auth-key' | 'tls-key' | 'upstream-key' | 'ext-authz-key'> &
    Record<'ca', 'auth-ca' | 'client-ca' | 'upstream-ca' | 'ext-authz-client-ca'>
>;

/** @returns undefined when a key is missing; its fault is reported then */
function settingsOf(values: Values, faults: string[]): GateSettings | undefined {
  const tls = (names: TlsNames): TlsFiles | undefined => {
    const files: TlsFiles = { cert: values[names.cert], key: values[names.key], ca: values[names.ca] };
    if (files.cert === undefined && files.key === undefined && files.ca === undefined) return undefined;
    faults.push(...tlsFaultsOf(files).map(({ file, problem }) => `${names[file]} ${problem}`));
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
  const auth = {
    issuer: values.issuer ?? '',
    audience,
    address: values.auth ?? '',
    tls: tls({ cert: 'auth-cert', key: 'auth-key', ca: 'auth-ca' }),
    clientId,
    nats: natsOf(values),
  };
  const others = {
    listen: values.listen && {
      address: values.listen,
      tls: tls({ cert: 'tls-cert', key: 'tls-key', ca: 'client-ca' }),
      clientAuth: values['client-auth'],
    },
    upstream: values.upstream && {
      address: values.upstream,
      tls: tls({ cert: 'upstream-cert', key: 'upstream-key', ca: 'upstream-ca' }),
      serverName:
        values['upstream-name'] ?? (values.upstream.kind === 'tcp' ? values.upstream.host : 'localhost'),
      exposed: values['upstream-exposed'],
    },
    rules: rulesIn(values),
    identity: {
      mode: values.identity,
      token: values.token,
      key: identityKey,
      issuer: values['identity-issuer'],
      audience: values['identity-audience'] ?? audience,
    },
    plaintext: values.plaintext,
    mode: values.mode,
    limits: limitsIn(values),
    trustedIssuers: trustedIssuersOf(
      values['trusted-issuers'],
      { ownIssuer: values.issuer, plaintext: values.plaintext },
      faults,
    ),
    extAuthz: values['ext-authz'] && {
      address: values['ext-authz'],
      tls: tls({ cert: 'ext-authz-cert', key: 'ext-authz-key', ca: 'ext-authz-client-ca' }),
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
  // Only now: every fault is to be found.
  return clientKey === undefined ? undefined : { auth: { ...auth, clientKey }, ...others };
}

function rulesIn(values: Values): RulesSettings {
  return {
    descriptors: values.descriptors,
    file: values.rules,
    publicMethods: values.public,
    health: values.health,
    reflection: values.reflection,
  };
}

function limitsIn({ limits }: Values): Partial<GuardLimits> {
  return Object.fromEntries(Object.entries(limits).filter(([, value]) => value !== undefined));
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
