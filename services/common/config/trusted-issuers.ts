/** The configuration of other issuers whose tokens a service accepts. */
import { readFileSync } from 'node:fs';
import { type Plaintext, type TrustedIssuer, trustedIssuerFaults } from '@portcullis/guard';
import {
  LEGACY_SECRET_BYTES_MIN,
  REVOCABLE_CLAIMS_MAX,
  SIGNATURE_ALGORITHMS,
} from '@portcullis/guard/limits';
import { z } from 'zod';
import { type ConfigurationFault, optional, secret, text } from './env.js';

/** Another issuer, and the audiences by which its tokens name our services. */
export interface ConfiguredIssuer extends TrustedIssuer {
  /** Its `aud` by the name of our service; a service that is missing has its own name. */
  readonly audiences: ReadonlyMap<string, string>;
}

const VARIABLE = 'PORTCULLIS_TRUSTED_ISSUERS';

/** The variable, the same in all services: JSON, or a file with JSON. It may hold secrets. */
export const TRUSTED_ISSUERS_VARIABLES = {
  PORTCULLIS_TRUSTED_ISSUERS: optional(secret(text())),
};

const claimName = z.union([z.string().min(1), z.array(z.string().min(1)).min(1).max(8)]);
const mapping = z.record(z.string().min(1), z.string().regex(/^[a-z0-9][a-z0-9._-]{0,99}$/));

const issuerSchema = z
  .strictObject({
    issuer: z.string().min(1),
    jwks_url: z.url().optional(),
    jwks_file: z.string().min(1).optional(),
    legacy_secret: z.string().optional(),
    legacy_secret_file: z.string().min(1).optional(),
    algorithms: z.array(z.enum(SIGNATURE_ALGORITHMS)).min(1).optional(),
    types: z.array(z.string()).min(1).optional(),
    audiences: z.record(z.string().min(1), z.string().min(1)).optional(),
    claims: z
      .strictObject({
        subject: claimName.optional(),
        token_id: claimName.optional(),
        session_id: claimName.optional(),
        client_id: claimName.optional(),
        scopes: claimName.optional(),
        roles: claimName.optional(),
        auth_time: claimName.optional(),
      })
      .optional(),
    scopes: mapping.optional(),
    roles: mapping.optional(),
    revocable: z.array(claimName).max(REVOCABLE_CLAIMS_MAX).optional(),
    services: z
      .strictObject({ claim: claimName, values: z.array(z.string().min(1)).min(1).max(64) })
      .optional(),
    lifetime_max_seconds: z.int().optional(),
  })
  .superRefine((given, context) => {
    const sources = [given.jwks_url, given.jwks_file, given.legacy_secret, given.legacy_secret_file];
    if (sources.filter((source) => source !== undefined).length !== 1) {
      context.addIssue('must have one of jwks_url, jwks_file, legacy_secret and legacy_secret_file');
    }
    const isLegacy = given.jwks_url === undefined && given.jwks_file === undefined;
    if (isLegacy && given.algorithms !== undefined)
      context.addIssue('must name no algorithms: a secret has HS256');
    if (!isLegacy && given.algorithms === undefined) context.addIssue('must name the algorithms of its keys');
  });

type Given = z.infer<typeof issuerSchema>;

/**
 * The issuers in the variable, or its faults.
 *
 * @param service - the audience of the service that reads it
 */
export function parseTrustedIssuers(
  good: {
    readonly [VARIABLE]?: string | undefined;
    readonly PORTCULLIS_ISSUER?: string;
    readonly PORTCULLIS_PLAINTEXT?: Plaintext;
  },
  service: string,
): { readonly issuers: readonly ConfiguredIssuer[]; readonly faults: readonly ConfigurationFault[] } {
  const given = good[VARIABLE];
  if (given === undefined) return { issuers: [], faults: [] };
  const faulty = (problems: readonly string[]) => ({
    issuers: [],
    faults: problems.map((problem) => ({ variable: VARIABLE, problem })),
  });
  let json: unknown;
  try {
    json = JSON.parse(given);
  } catch {
    return faulty(['is not JSON']);
  }
  const parsed = z.array(issuerSchema).safeParse(json);
  if (!parsed.success) {
    // Messages of the schema name what is expected, and never what was given.
    return faulty(
      parsed.error.issues.map(
        ({ path, message }) => `has a fault at ${path.join('.') || 'the top'}: ${message}`,
      ),
    );
  }
  const problems: string[] = [];
  const issuers = parsed.data.flatMap((one, index) => {
    const issuer = issuerOf(one, service);
    if (typeof issuer !== 'string') return [issuer];
    problems.push(`has a fault at ${index}: ${issuer}`);
    return [];
  });
  const { PORTCULLIS_ISSUER: ownIssuer, PORTCULLIS_PLAINTEXT: plaintext } = good;
  const faults = trustedIssuerFaults(issuers, { ownIssuer, plaintext });
  problems.push(...faults.map(({ index, problem }) => `has a fault at ${index}: ${problem}`));
  return problems.length > 0 ? faulty(problems) : { issuers, faults: [] };
}

function issuerOf(given: Given, service: string): ConfiguredIssuer | string {
  const keys = keysOf(given);
  if (typeof keys === 'string') return keys;
  const audiences = new Map(Object.entries(given.audiences ?? {}));
  const { claims } = given;
  return {
    issuer: given.issuer,
    audience: audiences.get(service),
    audiences,
    keys,
    types: given.types,
    claims: claims && {
      subject: claims.subject,
      tokenId: claims.token_id,
      sessionId: claims.session_id,
      clientId: claims.client_id,
      scopes: claims.scopes,
      roles: claims.roles,
      authTime: claims.auth_time,
    },
    scopes: given.scopes,
    roles: given.roles,
    revocable: given.revocable,
    services: given.services,
    lifetimeMaxSeconds: given.lifetime_max_seconds,
  };
}

function keysOf(given: Given): TrustedIssuer['keys'] | string {
  const { jwks_url: jwksUrl, jwks_file: jwksFile, algorithms = [] } = given;
  if (jwksUrl !== undefined || jwksFile !== undefined) return { jwksUrl, jwksFile, algorithms };
  let legacySecret = given.legacy_secret;
  try {
    legacySecret ??= readFileSync(given.legacy_secret_file ?? '', 'utf8').trim();
  } catch (error) {
    const code = error instanceof Error && 'code' in error ? String(error.code) : 'unknown error';
    return `legacy_secret_file cannot be read (${code})`;
  }
  const bytes = Buffer.from(legacySecret, 'utf8');
  return bytes.byteLength < LEGACY_SECRET_BYTES_MIN
    ? `the secret must have at least ${LEGACY_SECRET_BYTES_MIN} bytes`
    : { legacySecret: bytes };
}
