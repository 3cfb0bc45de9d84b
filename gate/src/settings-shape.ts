/** What each setting may be, and what settings require of each other. */

import { DEFAULT_LIMITS } from '@portcullis/guard';
import { z } from 'zod';
import { type Address, isOnThisMachine, parseAddress } from './addresses.js';
import { type FlagName, GATE_FLAGS } from './flags.js';
import { ISSUER_NAMES, issuersShape } from './issuers-shape.js';
import type { Described } from './shape-faults.js';

const WORKERS_MAX = 256;
const DRAIN_SECONDS_DEFAULT = 10;
const DRAIN_SECONDS_MAX = 600;
/** The full path of a method. */
export const METHOD_PATH = /^\/[A-Za-z0-9_.]+\/[A-Za-z0-9_]+$/;
const HEADER_NAME = /^[a-z0-9-]{1,64}$/;

/** An address, as text. */
const address = z.string().transform((text, context): Address => {
  const read = parseAddress(text);
  if (!('problem' in read)) return read;
  context.addIssue(read.problem);
  return z.NEVER;
});
const path = z.string().min(1, 'must not be empty');
const name = z.string().regex(/^[\x21-\x7e]{1,256}$/, 'must be 1 to 256 printable characters without spaces');
const paths = z
  .union([z.string().transform((text) => text.split(',').map((part) => part.trim())), z.array(z.string())], {
    error: 'must be a list of paths',
  })
  .refine(
    (list) => list.every((item) => METHOD_PATH.test(item)),
    'must be paths such as /package.Service/Method',
  );
const headerName = z.string().toLowerCase().regex(HEADER_NAME, 'must be the name of a header');
const number = (min: number, max: number) =>
  z
    .union(
      [
        z.number(),
        z
          .string()
          .regex(/^\d{1,15}$/, 'must be a whole number')
          .transform(Number),
      ],
      {
        error: 'must be a whole number',
      },
    )
    .refine(
      (value) => Number.isInteger(value) && value >= min && value <= max,
      `must be a whole number from ${min} to ${max}`,
    );
/** A limit of the guard: Infinity, in YAML .inf, switches it off. */
const limit = z.custom<number>((value) => typeof value === 'number' && value > 0, 'must be a number above 0');

const SHAPE = {
  service: path.optional(),
  issuer: name.optional(),
  audience: name.optional(),
  auth: name.optional(),
  'auth-ca': path.optional(),
  'auth-cert': path.optional(),
  'auth-key': path.optional(),
  'client-id': name.optional(),
  'client-key': path.optional(),
  nats: name.optional(),
  'nats-ca': path.optional(),
  'nats-nkey': path.optional(),
  'nats-creds': path.optional(),
  listen: address.optional(),
  'tls-cert': path.optional(),
  'tls-key': path.optional(),
  'client-ca': path.optional(),
  'client-auth': z.enum(['off', 'request', 'require']).default('off'),
  plaintext: z.enum(['loopback', 'allow']).default('loopback'),
  mode: z.enum(['enforce', 'observe']).default('enforce'),
  upstream: address.optional(),
  'upstream-ca': path.optional(),
  'upstream-cert': path.optional(),
  'upstream-key': path.optional(),
  'upstream-name': name.optional(),
  'upstream-exposed': z.enum(['refuse', 'warn']).default('refuse'),
  descriptors: path.optional(),
  rules: path.optional(),
  public: paths.default([]),
  health: z.enum(['public', 'closed']).default('public'),
  reflection: z.enum(['closed', 'public', 'authenticated']).default('closed'),
  token: z.enum(['strip', 'forward']).default('strip'),
  identity: z.enum(['headers', 'signed', 'off']).default('headers'),
  'identity-key': path.optional(),
  'identity-issuer': name.default('portcullis-gate'),
  'identity-audience': name.optional(),
  'ext-authz': address.optional(),
  'ext-authz-cert': path.optional(),
  'ext-authz-key': path.optional(),
  'ext-authz-client-ca': path.optional(),
  'http-check': address.optional(),
  'http-check-path-header': headerName.default('x-original-uri'),
  'http-check-address-header': headerName.default('x-forwarded-for'),
  'http-check-cert-header': headerName.optional(),
  'health-listen': address.optional(),
  'ops-listen': address.optional(),
  workers: number(1, WORKERS_MAX).default(1),
  'drain-seconds': number(0, DRAIN_SECONDS_MAX).default(DRAIN_SECONDS_DEFAULT),
  'log-level': z.enum(['debug', 'info', 'warn', 'error']).default('info'),
} satisfies Record<FlagName, z.ZodType>;

/** The names of the limits of the guard. */
const LIMIT_NAMES: readonly string[] = Object.keys(DEFAULT_LIMITS);

/** What only the configuration file can have: tables, by the names of the library's options. */
const TABLES = {
  limits: z.strictObject(Object.fromEntries(LIMIT_NAMES.map((one) => [one, limit.optional()]))).default({}),
  'trusted-issuers': issuersShape.default([]),
};

export const SETTINGS_SHAPE = z.strictObject({ ...SHAPE, ...TABLES });

/** The names of the settings, for those who misspell one. */
export const DESCRIBED_SETTINGS: Described = {
  knownAt: (place) => {
    if (place.length === 0) {
      return { noun: 'setting', names: [...GATE_FLAGS.map((one) => one.name), ...Object.keys(TABLES)] };
    }
    if (place[0] === 'limits') return { noun: 'limit', names: LIMIT_NAMES };
    if (place[0] !== 'trusted-issuers') return undefined;
    return { noun: 'option of a trusted issuer', names: ISSUER_NAMES[String(place[2] ?? '')] ?? [] };
  },
};

/** The values of the settings. */
export type Values = z.infer<typeof SETTINGS_SHAPE>;

/** The values of the settings that are good by themselves. */
export function goodOf(merged: Record<string, unknown>): Values {
  const good = Object.entries(merged).filter(([key, value]) => {
    const shape: z.ZodType | undefined = Object.hasOwn(SETTINGS_SHAPE.shape, key)
      ? SETTINGS_SHAPE.shape[key as keyof typeof SETTINGS_SHAPE.shape]
      : undefined;
    return shape?.safeParse(value).success === true;
  });
  return SETTINGS_SHAPE.parse(Object.fromEntries(good));
}

/** Settings that others require, and that have no effect without others. */
export function missingIn(values: Values, merged: Record<string, unknown>): string[] {
  const faults: string[] = [];
  const need = (required: FlagName, why: string): void => {
    if (values[required] === undefined && merged[required] === undefined)
      faults.push(`${required} is required${why}`);
  };
  for (const required of ['issuer', 'auth', 'client-id', 'client-key'] as const) {
    need(required, ': name it, or a file of portcullis service add --env with service');
  }
  if (
    values.listen === undefined &&
    values['ext-authz'] === undefined &&
    values['http-check'] === undefined
  ) {
    need('listen', ' unless ext-authz or http-check is set');
  }
  if (values.listen !== undefined) need('upstream', ' by listen');
  if (values.upstream !== undefined) need('listen', ' by upstream');
  if (values.descriptors === undefined && values.rules === undefined) {
    need('descriptors', ' unless there is a file of rules');
  }
  for (const [one, other] of [
    ['tls-cert', 'tls-key'],
    ['auth-cert', 'auth-key'],
    ['upstream-cert', 'upstream-key'],
    ['ext-authz-cert', 'ext-authz-key'],
  ] as const) {
    if (values[one] !== undefined) need(other, ` by ${one}`);
    if (values[other] !== undefined) need(one, ` by ${other}`);
  }
  if (values['client-auth'] !== 'off') {
    need('client-ca', ` while client-auth is ${values['client-auth']}`);
    need('tls-cert', ` while client-auth is ${values['client-auth']}`);
  } else if (values['client-ca'] !== undefined) {
    faults.push('client-ca has no effect while client-auth is off');
  }
  if (values['upstream-cert'] !== undefined) need('upstream-ca', ' by upstream-cert');
  if (values.identity === 'signed') need('ops-listen', ' by identity signed: it publishes the key');
  else if (values['identity-key'] !== undefined)
    faults.push('identity-key has no effect unless identity is signed');
  return faults;
}

/** Ports at which others could read tokens, or ask whether a token is good. */
export function exposureIn(values: Values): string[] {
  const faults: string[] = [];
  const isOpen = (of: Address | undefined): of is Address => of !== undefined && !isOnThisMachine(of);
  if (isOpen(values.listen) && values['tls-cert'] === undefined && values.plaintext === 'loopback') {
    faults.push('tls-cert is required unless listen stays on this machine, or plaintext is allow');
  }
  const extAuthz = values['ext-authz'];
  if (extAuthz !== undefined && extAuthz.kind !== 'unix') {
    for (const required of ['ext-authz-cert', 'ext-authz-client-ca'] as const) {
      if (values[required] !== undefined) continue;
      faults.push(
        `${required} is required unless ext-authz is a unix socket: it tells whether tokens are valid`,
      );
    }
  }
  if (isOpen(values['http-check'])) {
    faults.push('http-check must stay on this machine: it tells whether tokens are valid');
  }
  const isUnauthenticated = values['upstream-cert'] === undefined;
  if (isOpen(values.upstream) && isUnauthenticated && values['upstream-exposed'] === 'refuse') {
    faults.push(
      'upstream can be called around the gate: use a unix socket or a loopback address, let it demand the certificate of ' +
        'upstream-cert, or set upstream-exposed to warn if the network admits the gate alone',
    );
  }
  return faults;
}
