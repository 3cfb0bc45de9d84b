/** Other issuers whose tokens a gate accepts, as its configuration file has them: by the names of the library's options. */

import { type TrustedIssuer, trustedIssuerFaults } from '@portcullis/guard';
import { REVOCABLE_CLAIMS_MAX, SIGNATURE_ALGORITHMS } from '@portcullis/guard/limits';
import { z } from 'zod';
import { readBytes, UnreadableError } from './yaml-file.js';

/** Maximum size of the file with a secret, in bytes. */
const SECRET_BYTES_MAX = 64 * 1024;

const claimName = z.union([z.string().min(1), z.array(z.string().min(1)).min(1).max(8)], {
  error: 'must be the name of a claim, or the names that lead to it',
});
const mapping = z.record(z.string().min(1), z.string().min(1));

const CLAIMS = {
  subject: claimName.optional(),
  tokenId: claimName.optional(),
  sessionId: claimName.optional(),
  clientId: claimName.optional(),
  scopes: claimName.optional(),
  roles: claimName.optional(),
  authTime: claimName.optional(),
};
const KEYS = {
  jwksUrl: z.string().min(1).optional(),
  jwksFile: z.string().min(1).optional(),
  algorithms: z.array(z.enum(SIGNATURE_ALGORITHMS)).min(1).optional(),
  /** The library has the secret itself here: a configuration file should have none. */
  legacySecretFile: z.string().min(1).optional(),
};
const SERVICES = { claim: claimName, values: z.array(z.string().min(1)).min(1) };
const ISSUER = {
  issuer: z.string().min(1),
  audience: z.string().min(1).optional(),
  keys: z.strictObject(KEYS),
  types: z.array(z.string()).min(1).optional(),
  claims: z.strictObject(CLAIMS).optional(),
  scopes: mapping.optional(),
  roles: mapping.optional(),
  revocable: z.array(claimName).max(REVOCABLE_CLAIMS_MAX).optional(),
  services: z.strictObject(SERVICES).optional(),
  lifetimeMaxSeconds: z.number().optional(),
};

export const issuersShape = z.array(z.strictObject(ISSUER));

export type IssuerSettings = z.infer<typeof issuersShape>;

/** The names that an issuer may have, and its tables by their names. */
export const ISSUER_NAMES: Readonly<Record<string, readonly string[]>> = {
  '': Object.keys(ISSUER),
  keys: Object.keys(KEYS),
  claims: Object.keys(CLAIMS),
  services: Object.keys(SERVICES),
};

/**
 * The issuers in the form of the library.
 *
 * @param faults receives every fault, each with the place of its issuer
 */
export function trustedIssuersOf(
  settings: IssuerSettings,
  known: Parameters<typeof trustedIssuerFaults>[1],
  faults: string[],
): readonly TrustedIssuer[] {
  const issuers = settings.flatMap((one, index): TrustedIssuer[] => {
    const keys = keysOf(one.keys);
    if (typeof keys !== 'string') return [{ ...one, keys }];
    faults.push(`trusted-issuers.${index}.keys ${keys}`);
    return [];
  });
  // With the issuers that have a fault already, the numbers of the others would not be theirs.
  if (issuers.length < settings.length) return issuers;
  for (const { index, problem } of trustedIssuerFaults(issuers, known)) {
    faults.push(`trusted-issuers.${index}: ${problem}`);
  }
  return issuers;
}

function keysOf({
  jwksUrl,
  jwksFile,
  algorithms,
  legacySecretFile,
}: IssuerSettings[number]['keys']): TrustedIssuer['keys'] | string {
  if ([jwksUrl, jwksFile, legacySecretFile].filter((one) => one !== undefined).length !== 1)
    return 'must have one of jwksUrl, jwksFile and legacySecretFile';
  if (legacySecretFile === undefined) {
    return algorithms === undefined
      ? `must have algorithms among ${SIGNATURE_ALGORITHMS.join(', ')}`
      : { jwksUrl, jwksFile, algorithms };
  }
  if (algorithms !== undefined) return 'must name no algorithms: a secret has HS256';
  try {
    const text = readBytes(legacySecretFile, SECRET_BYTES_MAX).toString('utf8').trim();
    return { legacySecret: Buffer.from(text, 'utf8') };
  } catch (error) {
    if (error instanceof UnreadableError) return `legacySecretFile ${error.message}: ${legacySecretFile}`;
    throw error;
  }
}
