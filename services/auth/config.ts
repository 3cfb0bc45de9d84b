/** The configuration of auth, from the environment and the bootstrap file. */

import { ACCESS_TOKEN_LIFETIME_MAX_SECONDS, SIGNATURE_ALGORITHMS } from '@portcullis/guard/limits';
import { z } from 'zod';
import type { ConfigurationFault } from '../common/config/env.js';
import {
  base64urlBytes,
  fileContents,
  hostPort,
  isLoopback,
  milliseconds,
  oneOf,
  optional,
  parseEnvironment,
  seconds,
  secret,
  someOf,
  url,
  wholeNumber,
  withDefault,
} from '../common/config/env.js';
import {
  type ServiceConfig,
  serviceConfigOf,
  serviceFaults,
  serviceVariables,
  UNKNOWN_LANE_VARIABLES,
} from '../common/config/service-config.js';
import { parseDatabaseUrl } from '../common/database/database-url.js';
import { isWord, LIST_LENGTH_MAX } from '../common/validation/words.js';
import type { Bootstrap } from './accounts/bootstrap.js';
import { HASHES_AT_ONCE_DEFAULT, HASHES_WAITING_DEFAULT, passwordFault } from './accounts/passwords.js';
import { RESET_SECONDS_DEFAULT, RESET_SECONDS_MAX } from './accounts/reset-tokens.js';
import { OWN_AUDIENCE } from './accounts/roles.js';
import { parseUsername, USERNAME_RULE } from './accounts/usernames.js';
import { clientIdFault } from './clients/client-ids.js';
import { clientKeyFault, clientSecretFault } from './clients/credentials.js';
import { KEY_ROTATION_DAYS_DEFAULT } from './keys/key-life.js';
import type { SigningAlgorithm } from './keys/new-keys.js';
import { KEY_ENCRYPTION_KEY_BYTES, type KeyEncryptionKeys } from './keys/sealed-keys.js';
import { faultsOf, OWN_ROLES, withBuiltIns } from './policy/document.js';
import type { AnomalyRule } from './records/security-events.js';
import { CANARY_SECONDS_DEFAULT, CANARY_SECONDS_MAX } from './revocation/canary.js';
import { INSTANCES_MAX, INSTANCES_PER_CLIENT_DEFAULT } from './revocation/instance-places.js';
import { REVOKING_RULES } from './security/anomaly-watch.js';
import { EVENT_DAYS_MAX, EVENT_DAYS_MIN, EVENT_KEPT_DAYS } from './security/events.js';
import type { QueueLimits } from './security/fair-queue.js';
import type { Endpoint, ReviewSettings } from './security/review-findings.js';
import {
  FAILURES_PER_NAME_DEFAULT,
  FAILURES_PER_PEER_DEFAULT,
  type ThrottleLimits,
  WINDOW_SECONDS_DEFAULT,
} from './security/throttle.js';
import { LOGIN_BINDINGS, type LoginBinding } from './sessions/login.js';
import { REFRESHES_PER_TOKEN_DEFAULT } from './sessions/refresh-places.js';
import { REFRESH_RETRY_SECONDS_DEFAULT } from './sessions/refresh-tokens.js';
import { ASSERTIONS_AT_ONCE_DEFAULT, ASSERTIONS_WAITING_DEFAULT } from './tokens/client-authentication.js';

/** Minimum length of a lease, in milliseconds. */
const LEASE_MS_MIN = 100;

/** Maximum length of a lease, in milliseconds. It bounds the delay of a revocation when everything fails. */
const LEASE_MS_MAX = 60_000;

/** Default length of a lease, in milliseconds. */
const LEASE_MS_DEFAULT = 5000;

/** Maximum of the time within which a refresh may be retried, in seconds. */
const REFRESH_RETRY_SECONDS_MAX = 300;

/** Maximum of the configurable number of refreshes with one token at the same time. */
const REFRESHES_PER_TOKEN_MAX = 1000;

/** Maximum of the configurable limits of failed logins. */
const LOGIN_FAILURES_MAX = 1_000_000_000;

/** Maximum of the configurable concurrency of a queue. */
const QUEUE_AT_ONCE_MAX = 64;

/** Maximum of the configurable number of callers of one class that wait in a queue. */
const QUEUE_WAITING_MAX = 10_000;

/** Maximum of the configurable time that a caller waits in a queue, in milliseconds. */
const QUEUE_WAIT_MS_MAX = 60_000;

/** Default lifetime of an access token, in seconds. */
const ACCESS_TOKEN_SECONDS_DEFAULT = 300;

/** Default time that a caller waits in a queue, in milliseconds. */
const QUEUE_WAIT_MS_DEFAULT = 3000;

/** Maximum time between two rotations of a signing key, in days. */
const KEY_ROTATION_DAYS_MAX = 366;

/** Everything that can be configured; auth exchanges the tokens of `trustedIssuers`. */
export interface Config extends ServiceConfig {
  readonly keyEncryptionKeys: KeyEncryptionKeys;
  readonly signingAlgorithm: SigningAlgorithm;
  readonly keyRotationDays: number;
  /** For how many days security events are kept that are not routine. */
  readonly eventDays: number;
  readonly accessTokenSeconds: number;
  readonly leaseMs: number;
  /** The limits of the queue for password hashes. */
  readonly passwordQueue: QueueLimits;
  /** The limits of the queue for clients' assertions. */
  readonly assertionQueue: QueueLimits;
  /** How long after its first use a refresh token may be retried, in seconds. */
  readonly refreshRetrySeconds: number;
  /** Maximum number of refreshes with one token at the same time. */
  readonly refreshesPerToken: number;
  /** Maximum number of instances of one client at this replica. */
  readonly instancesPerClient: number;
  /** Time between two measurements with canary tokens, in seconds; 0 for none. */
  readonly canarySeconds: number;
  readonly loginLimits: ThrottleLimits;
  /** A port of its own for the public keys, apart from probes and metrics. */
  readonly keysListen: string | undefined;
  /** Where the console listens; there is none when undefined. */
  readonly consoleListen: string | undefined;
  /** Where browsers find the console; the address on which it listens when undefined. */
  readonly consoleOrigin: string | undefined;
  /** Lifetime of the tokens with which users set a new password, in seconds. */
  readonly passwordResetSeconds: number;
  /** Whether users' sessions are bound to the client certificate of the login. */
  readonly loginBinding: LoginBinding;
  /** The anomaly rules whose findings revoke the session that they name. */
  readonly anomaliesRevoke: readonly AnomalyRule[];
  readonly bootstrap: Bootstrap;
}

/**
 * Reads the configuration.
 *
 * @throws ConfigurationError with all faults, each naming its variable
 */
export function parseConfig(env: NodeJS.ProcessEnv): Config {
  let bootstrap: Bootstrap = { users: [], clients: [] };
  const values = parseEnvironment(VARIABLES, env, (found) => {
    const faults: readonly ConfigurationFault[] = [
      ...serviceFaults(found, OWN_AUDIENCE),
      ...loginBindingFaults(found),
      ...consoleFaults(found),
      ...keyEncryptionFaults(found),
    ];
    const text = found.PORTCULLIS_BOOTSTRAP_FILE;
    if (text === undefined) return faults;
    const parsed = parseBootstrap(text);
    if ('faults' in parsed) {
      const variable = 'PORTCULLIS_BOOTSTRAP_FILE';
      return [...parsed.faults.map((problem) => ({ variable, problem })), ...faults];
    }
    bootstrap = parsed;
    return faults;
  });
  return Object.freeze({
    ...serviceConfigOf(values, OWN_AUDIENCE),
    keyEncryptionKeys: {
      current: values.PORTCULLIS_KEY_ENCRYPTION_KEY,
      previous: values.PORTCULLIS_KEY_ENCRYPTION_KEY_PREVIOUS,
      next: values.PORTCULLIS_KEY_ENCRYPTION_KEY_NEXT,
    },
    signingAlgorithm: values.PORTCULLIS_SIGNING_ALGORITHM,
    keyRotationDays: values.PORTCULLIS_KEY_ROTATION_DAYS,
    eventDays: values.PORTCULLIS_SECURITY_EVENT_DAYS,
    accessTokenSeconds: values.PORTCULLIS_ACCESS_TOKEN_SECONDS,
    leaseMs: values.PORTCULLIS_LEASE_MS,
    refreshRetrySeconds: values.PORTCULLIS_REFRESH_RETRY_SECONDS,
    refreshesPerToken: values.PORTCULLIS_REFRESHES_PER_TOKEN,
    passwordQueue: {
      atOnceMax: values.PORTCULLIS_PASSWORD_HASHES_AT_ONCE,
      waitingMax: values.PORTCULLIS_PASSWORD_HASHES_WAITING,
      waitMaxMs: values.PORTCULLIS_QUEUE_WAIT_MS,
    },
    assertionQueue: {
      atOnceMax: values.PORTCULLIS_ASSERTIONS_AT_ONCE,
      waitingMax: values.PORTCULLIS_ASSERTIONS_WAITING,
      waitMaxMs: values.PORTCULLIS_QUEUE_WAIT_MS,
    },
    instancesPerClient: values.PORTCULLIS_INSTANCES_PER_CLIENT,
    canarySeconds: values.PORTCULLIS_CANARY_SECONDS,
    loginLimits: {
      failuresPerName: values.PORTCULLIS_LOGIN_FAILURES_PER_NAME,
      failuresPerPeer: values.PORTCULLIS_LOGIN_FAILURES_PER_PEER,
      windowSeconds: values.PORTCULLIS_LOGIN_WINDOW_SECONDS,
    },
    keysListen: values.PORTCULLIS_KEYS_LISTEN,
    consoleListen: values.PORTCULLIS_CONSOLE_LISTEN,
    consoleOrigin: values.PORTCULLIS_CONSOLE_ORIGIN,
    passwordResetSeconds: values.PORTCULLIS_PASSWORD_RESET_SECONDS,
    loginBinding: values.PORTCULLIS_LOGIN_BINDING,
    anomaliesRevoke: values.PORTCULLIS_ANOMALIES_REVOKE,
    bootstrap,
  });
}

/** A login binding requires client certificates: without them, logins would fail or never be bound. */
function loginBindingFaults({
  PORTCULLIS_LOGIN_BINDING: binding,
  PORTCULLIS_TLS_CLIENT_AUTH: clientAuth,
}: {
  readonly PORTCULLIS_LOGIN_BINDING?: LoginBinding;
  readonly PORTCULLIS_TLS_CLIENT_AUTH?: string;
}): readonly ConfigurationFault[] {
  if (binding === undefined || binding === 'off' || clientAuth !== 'off') return [];
  const problem = 'can be other than off only when PORTCULLIS_TLS_CLIENT_AUTH is';
  return [{ variable: 'PORTCULLIS_LOGIN_BINDING', problem }];
}

/** Browsers have no client certificate for the console's calls, and must be able to tell its origin. */
function consoleFaults({
  PORTCULLIS_CONSOLE_LISTEN: listen,
  PORTCULLIS_CONSOLE_ORIGIN: origin,
  PORTCULLIS_LOGIN_BINDING: binding,
  PORTCULLIS_TLS_CERT_FILE: certificate,
  PORTCULLIS_PLAINTEXT: plaintext,
}: {
  readonly PORTCULLIS_TLS_CERT_FILE?: string | undefined;
  readonly PORTCULLIS_PLAINTEXT?: string;
  readonly PORTCULLIS_CONSOLE_LISTEN?: string | undefined;
  readonly PORTCULLIS_CONSOLE_ORIGIN?: string | undefined;
  readonly PORTCULLIS_LOGIN_BINDING?: LoginBinding;
}): readonly ConfigurationFault[] {
  const faults: ConfigurationFault[] = [];
  const fault = (variable: string, problem: string): void => void faults.push({ variable, problem });
  if (listen === undefined) {
    if (origin !== undefined) {
      fault('PORTCULLIS_CONSOLE_ORIGIN', 'has no effect without PORTCULLIS_CONSOLE_LISTEN');
    }
    return faults;
  }
  if (binding === 'required') {
    fault('PORTCULLIS_CONSOLE_LISTEN', 'can be set only when PORTCULLIS_LOGIN_BINDING is not required');
  }
  if (origin === undefined && !isLoopback(listen)) {
    fault(
      'PORTCULLIS_CONSOLE_ORIGIN',
      'is required unless PORTCULLIS_CONSOLE_LISTEN stays on this machine, such as https://console.example',
    );
  }
  // Without `allow`, the rule for all listeners reports this.
  if (!isLoopback(listen) && certificate === undefined && plaintext === 'allow') {
    fault(
      'PORTCULLIS_TLS_CERT_FILE',
      'is required unless PORTCULLIS_CONSOLE_LISTEN stays on this machine, whatever PORTCULLIS_PLAINTEXT is',
    );
  }
  if (origin !== undefined) faults.push(...consoleOriginFaults(origin, certificate !== undefined));
  return faults;
}

/** Over HTTP, the cookie of a login would travel in plaintext. Browsers send the scheme of the port in `Origin`. */
function consoleOriginFaults(origin: string, hasTls: boolean): readonly ConfigurationFault[] {
  const faults: ConfigurationFault[] = [];
  const fault = (variable: string, problem: string): void => void faults.push({ variable, problem });
  const { protocol, hostname } = new URL(origin);
  if (protocol === 'http:' && (hasTls || !isLoopback(`${hostname}:1`))) {
    const why = hasTls ? 'because PORTCULLIS_TLS_CERT_FILE is set' : 'unless its host is a loopback address';
    fault('PORTCULLIS_CONSOLE_ORIGIN', `must begin with https:// ${why}`);
  }
  if (new URL(origin).origin !== origin) {
    fault(
      'PORTCULLIS_CONSOLE_ORIGIN',
      `must be an origin without a path, in lower case: ${new URL(origin).origin}`,
    );
  }
  return faults;
}

/** The same key twice would look like a replacement that is not one. */
function keyEncryptionFaults(found: {
  readonly PORTCULLIS_KEY_ENCRYPTION_KEY?: Buffer;
  readonly PORTCULLIS_KEY_ENCRYPTION_KEY_PREVIOUS?: Buffer | undefined;
  readonly PORTCULLIS_KEY_ENCRYPTION_KEY_NEXT?: Buffer | undefined;
}): readonly ConfigurationFault[] {
  const { PORTCULLIS_KEY_ENCRYPTION_KEY: current } = found;
  return (['PORTCULLIS_KEY_ENCRYPTION_KEY_PREVIOUS', 'PORTCULLIS_KEY_ENCRYPTION_KEY_NEXT'] as const)
    .filter((variable) => current !== undefined && found[variable]?.equals(current) === true)
    .map((variable) => ({ variable, problem: 'must differ from PORTCULLIS_KEY_ENCRYPTION_KEY' }));
}

/** All variables, by name. */
export const VARIABLES = {
  ...serviceVariables({ broker: 'optional' }),
  ...UNKNOWN_LANE_VARIABLES,
  PORTCULLIS_KEY_ENCRYPTION_KEY: secret(base64urlBytes(KEY_ENCRYPTION_KEY_BYTES)),
  PORTCULLIS_KEY_ENCRYPTION_KEY_PREVIOUS: secret(optional(base64urlBytes(KEY_ENCRYPTION_KEY_BYTES))),
  PORTCULLIS_KEY_ENCRYPTION_KEY_NEXT: secret(optional(base64urlBytes(KEY_ENCRYPTION_KEY_BYTES))),
  PORTCULLIS_SIGNING_ALGORITHM: withDefault<SigningAlgorithm>(oneOf(SIGNATURE_ALGORITHMS), 'EdDSA'),
  PORTCULLIS_SECURITY_EVENT_DAYS: withDefault(
    wholeNumber({ min: EVENT_DAYS_MIN, max: EVENT_DAYS_MAX, unit: 'days' }),
    EVENT_KEPT_DAYS,
  ),
  PORTCULLIS_KEY_ROTATION_DAYS: withDefault(
    wholeNumber({ min: 1, max: KEY_ROTATION_DAYS_MAX, unit: 'days' }),
    KEY_ROTATION_DAYS_DEFAULT,
  ),
  PORTCULLIS_ACCESS_TOKEN_SECONDS: withDefault(
    seconds({ min: 10, max: ACCESS_TOKEN_LIFETIME_MAX_SECONDS }),
    ACCESS_TOKEN_SECONDS_DEFAULT,
  ),
  PORTCULLIS_LEASE_MS: withDefault(milliseconds({ min: LEASE_MS_MIN, max: LEASE_MS_MAX }), LEASE_MS_DEFAULT),
  PORTCULLIS_PASSWORD_HASHES_AT_ONCE: withDefault(
    wholeNumber({ min: 1, max: QUEUE_AT_ONCE_MAX, unit: 'hashes' }),
    HASHES_AT_ONCE_DEFAULT,
  ),
  PORTCULLIS_PASSWORD_HASHES_WAITING: withDefault(
    wholeNumber({ min: 1, max: QUEUE_WAITING_MAX, unit: 'callers' }),
    HASHES_WAITING_DEFAULT,
  ),
  PORTCULLIS_ASSERTIONS_AT_ONCE: withDefault(
    wholeNumber({ min: 1, max: QUEUE_AT_ONCE_MAX, unit: 'assertions' }),
    ASSERTIONS_AT_ONCE_DEFAULT,
  ),
  PORTCULLIS_ASSERTIONS_WAITING: withDefault(
    wholeNumber({ min: 1, max: QUEUE_WAITING_MAX, unit: 'callers' }),
    ASSERTIONS_WAITING_DEFAULT,
  ),
  PORTCULLIS_QUEUE_WAIT_MS: withDefault(
    milliseconds({ min: 100, max: QUEUE_WAIT_MS_MAX }),
    QUEUE_WAIT_MS_DEFAULT,
  ),
  PORTCULLIS_REFRESH_RETRY_SECONDS: withDefault(
    seconds({ min: 0, max: REFRESH_RETRY_SECONDS_MAX }),
    REFRESH_RETRY_SECONDS_DEFAULT,
  ),
  PORTCULLIS_REFRESHES_PER_TOKEN: withDefault(
    wholeNumber({ min: 1, max: REFRESHES_PER_TOKEN_MAX, unit: 'refreshes' }),
    REFRESHES_PER_TOKEN_DEFAULT,
  ),
  PORTCULLIS_INSTANCES_PER_CLIENT: withDefault(
    wholeNumber({ min: 1, max: INSTANCES_MAX, unit: 'instances' }),
    INSTANCES_PER_CLIENT_DEFAULT,
  ),
  PORTCULLIS_CANARY_SECONDS: withDefault(
    seconds({ min: 0, max: CANARY_SECONDS_MAX }),
    CANARY_SECONDS_DEFAULT,
  ),
  PORTCULLIS_LOGIN_FAILURES_PER_NAME: withDefault(
    wholeNumber({ min: 1, max: LOGIN_FAILURES_MAX }),
    FAILURES_PER_NAME_DEFAULT,
  ),
  PORTCULLIS_LOGIN_FAILURES_PER_PEER: withDefault(
    wholeNumber({ min: 1, max: LOGIN_FAILURES_MAX }),
    FAILURES_PER_PEER_DEFAULT,
  ),
  PORTCULLIS_LOGIN_WINDOW_SECONDS: withDefault(seconds({ min: 1, max: 86_400 }), WINDOW_SECONDS_DEFAULT),
  PORTCULLIS_PASSWORD_RESET_SECONDS: withDefault(
    seconds({ min: 60, max: RESET_SECONDS_MAX }),
    RESET_SECONDS_DEFAULT,
  ),
  PORTCULLIS_LOGIN_BINDING: withDefault<LoginBinding>(oneOf(LOGIN_BINDINGS), 'off'),
  PORTCULLIS_ANOMALIES_REVOKE: withDefault<readonly AnomalyRule[]>(someOf(REVOKING_RULES), []),
  PORTCULLIS_KEYS_LISTEN: optional(hostPort()),
  PORTCULLIS_CONSOLE_LISTEN: optional(hostPort()),
  PORTCULLIS_CONSOLE_ORIGIN: optional(url({ protocols: ['http:', 'https:'] })),
  PORTCULLIS_BOOTSTRAP_FILE: optional(fileContents()),
};

/** The settings that the security review evaluates. */
export function reviewSettingsOf(config: Config): ReviewSettings {
  const { signingAlgorithm, keyRotationDays, accessTokenSeconds, leaseMs, loginLimits } = config;
  const { reflection, log, tls } = config;
  const isEncrypted = tls.listener !== undefined;
  return {
    signingAlgorithm,
    keyRotationDays,
    accessTokenSeconds,
    leaseMs,
    loginLimits,
    reflection,
    logLevel: log.level,
    allowsPlaintext: tls.plaintext === 'allow',
    listeners: listenersOf(config).map((address) => ({
      address,
      isLoopback: isLoopback(address),
      isEncrypted,
    })),
    asksForCertificates: tls.listener !== undefined && tls.listener.clientAuth !== 'off',
    broker: config.natsUrl === undefined ? undefined : brokerOf(config.natsUrl, config.natsCredentials),
    database: databaseOf(config.databaseUrl),
    issuers: config.trustedIssuers.map(({ issuer, keys, lifetimeMaxSeconds }) => ({
      issuer,
      isSymmetric: 'legacySecret' in keys,
      algorithms: 'algorithms' in keys ? keys.algorithms : [],
      lifetimeMaxSeconds: lifetimeMaxSeconds ?? ACCESS_TOKEN_LIFETIME_MAX_SECONDS,
    })),
    bootstrapUsers: config.bootstrap.users.map(({ username }) => username),
  };
}

function listenersOf({ listen, opsListen, keysListen, consoleListen }: Config): readonly string[] {
  return [listen, opsListen, keysListen, consoleListen].filter((address) => address !== undefined);
}

function brokerOf(
  natsUrl: string,
  { nkeyFile, credsFile }: ServiceConfig['natsCredentials'],
): Endpoint & { readonly hasPassword: boolean } {
  const addresses = natsUrl
    .split(',')
    .map((address) => new URL(address.includes('://') ? address.trim() : `nats://${address.trim()}`));
  return {
    address: addresses.map(({ host }) => host).join(','),
    isLoopback: addresses.every(({ hostname }) => isLoopback(`${hostname}:0`)),
    isEncrypted: addresses.some(({ protocol }) => protocol === 'tls:'),
    // A user without a password is a token.
    hasPassword: addresses[0]?.username !== '' || nkeyFile !== undefined || credsFile !== undefined,
  };
}

function databaseOf(databaseUrl: string): Endpoint {
  const parsed = parseDatabaseUrl(databaseUrl);
  const hosts = 'urls' in parsed ? parsed.urls.map((one) => new URL(one)) : [];
  return {
    address: hosts.map(({ host }) => host).join(','),
    isLoopback: hosts.every(({ hostname, searchParams }) => {
      const host = searchParams.get('host') ?? hostname;
      // Without a host, or with a path in its place, the connection uses a Unix socket of this machine.
      return /^(?:$|\/|%2f)/i.test(host) || isLoopback(`${host}:0`);
    }),
    isEncrypted: hosts.every(({ searchParams }) => searchParams.get('sslmode') === 'verify-full'),
  };
}

const words = z.array(z.string().regex(/^[a-z0-9][a-z0-9._-]{0,99}$/)).max(LIST_LENGTH_MAX);

/** A text for which the check finds no fault. */
function textWithout(faultOf: (text: string) => string | undefined): z.ZodType<string> {
  return z.string().superRefine((text, context) => {
    const fault = faultOf(text);
    if (fault !== undefined) context.addIssue(fault);
  });
}

const userSchema = z.strictObject({
  username: z.string().transform((text, context) => {
    const username = parseUsername(text);
    if (username !== undefined) return username;
    context.addIssue(USERNAME_RULE);
    return z.NEVER;
  }),
  password: textWithout(passwordFault),
  roles: z.array(z.string().refine(isWord, 'must be a role')).max(LIST_LENGTH_MAX),
});

const clientSchema = z
  .strictObject({
    client_id: textWithout(clientIdFault),
    public_key_pem: textWithout(clientKeyFault).optional(),
    secret: textWithout(clientSecretFault).optional(),
    audiences: words,
    scopes: words,
    exchange_audiences: words.optional(),
    exchange_scopes: words.optional(),
    certificate_bound: z.boolean().optional(),
  })
  .superRefine((client, context) => {
    if ((client.public_key_pem === undefined) === (client.secret === undefined)) {
      context.addIssue('must have either public_key_pem or secret');
    }
  });

const policySchema = z
  .strictObject({
    services: z.array(
      z.strictObject({
        audience: z.string(),
        description: z.string().optional(),
        client_ids: z.array(z.string()).optional(),
        scopes: z.array(z.string()),
      }),
    ),
    roles: z.array(
      z.strictObject({ role: z.string(), description: z.string().optional(), scopes: z.array(z.string()) }),
    ),
  })
  .transform(({ services, roles }, context) => {
    const document = withBuiltIns({
      services: services.map(({ audience, description = '', client_ids: clientIds = [], scopes }) => ({
        audience,
        description,
        clientIds,
        scopes,
      })),
      roles: roles.map(({ description = '', ...role }) => ({ ...role, description })),
    });
    for (const { field, description } of faultsOf(document)) context.addIssue(`${field} ${description}`);
    return document;
  });

const bootstrapSchema = z
  .strictObject({
    policy: policySchema.optional(),
    users: z.array(userSchema).optional(),
    clients: z.array(clientSchema).optional(),
  })
  .superRefine(({ policy, users = [] }, context) => {
    // Without a policy in the file, only the database knows the roles.
    if (policy === undefined) return;
    const known = new Set([...policy.roles, ...OWN_ROLES].map(({ role }) => role));
    for (const [at, { roles }] of users.entries()) {
      for (const [index, role] of roles.entries()) {
        if (known.has(role)) continue;
        context.addIssue({
          code: 'custom',
          path: ['users', at, 'roles', index],
          message: `must be one of ${[...known].join(', ')}`,
        });
      }
    }
  });

/**
 * Parses the text of a bootstrap file.
 *
 * @returns its content, or all faults, each with its place and without secrets
 */
export function parseBootstrap(text: string): Bootstrap | { readonly faults: readonly string[] } {
  let json: unknown;
  try {
    json = JSON.parse(text);
  } catch {
    return { faults: ['names a file that is not JSON'] };
  }
  const parsed = bootstrapSchema.safeParse(json);
  if (parsed.success) return bootstrapOf(parsed.data);
  return {
    faults: parsed.error.issues.map(({ path, message }) =>
      path.length === 0
        ? `names a file with a fault: ${message}`
        : `has a fault at ${path.join('.')}: ${message}`,
    ),
  };
}

function bootstrapOf({ policy, users = [], clients = [] }: z.infer<typeof bootstrapSchema>): Bootstrap {
  return {
    ...(policy !== undefined && { policy }),
    users: users.map(({ username, password, roles }) => ({ username, password, roles: [...new Set(roles)] })),
    clients: clients.map((client) => ({
      clientId: client.client_id,
      publicKeyPem: client.public_key_pem,
      secret: client.secret,
      audiences: client.audiences,
      scopes: client.scopes,
      exchangeAudiences: client.exchange_audiences ?? [],
      exchangeScopes: client.exchange_scopes,
      certificateBound: client.certificate_bound ?? false,
    })),
  };
}
