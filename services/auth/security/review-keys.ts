/** The checks of algorithms, keys and lifetimes. */

import {
  ACCESS_TOKEN_SECONDS_GOOD,
  found,
  type KeyFacts,
  type ReviewFacts,
  type ReviewFinding,
} from './review-findings.js';

/** Bits of an RSA key below which it is weak: 128 bits of strength (NIST SP 800-57 part 1, table 2). */
const RSA_BITS_STRONG = 3072;

/** Longest recommended time for which a key signs, in days. */
const KEY_ROTATION_DAYS_GOOD = 90;

/** Longest delay of a rotation that is not reported, in days. */
const KEY_ROTATION_LATE_DAYS = 1;

/** Longest lease that counts as short, in milliseconds. */
const LEASE_MS_GOOD = 30_000;

export function checkAlgorithms({ settings, keys }: ReviewFacts): readonly ReviewFinding[] {
  const signing = keys.filter(({ purpose, state }) => purpose === 'token' && state === 'signing');
  const inUse = new Set([settings.signingAlgorithm, ...signing.map(({ algorithm }) => algorithm)]);
  return [
    ...found(inUse.has('RS256'), 'ALGORITHM_WEAK', 'weak', {
      subject: 'RS256',
      fact: 'access tokens are signed with RS256, whose padding (PKCS #1 v1.5) FAPI 2.0 no longer admits',
      remedy:
        'set PORTCULLIS_SIGNING_ALGORITHM to EdDSA, ES256 or PS256, start auth again and rotate the key',
    }),
    ...signing.flatMap(({ kid, algorithm }) =>
      found(algorithm !== settings.signingAlgorithm, 'ALGORITHM_NOT_YET_IN_USE', 'note', {
        subject: kid,
        fact: `${algorithm} signs until the next rotation, then ${settings.signingAlgorithm}`,
        remedy: 'call KeyService.RotateKey to change it at once',
      }),
    ),
  ];
}

export function checkKeys({ settings, keys, now }: ReviewFacts): readonly ReviewFinding[] {
  const used = keys.filter(({ state }) => state !== 'retired');
  const oldest = (signTime: Date): number => (now.getTime() - signTime.getTime()) / DAY_MS;
  return [
    ...used.flatMap((key) =>
      checkKey(key.kid, `key ${key.kid}`, key, 'replace it with KeyService.RotateKey'),
    ),
    ...used.flatMap(({ kid, purpose, state, signTime }) => {
      const days = state === 'signing' && signTime !== undefined ? oldest(signTime) : 0;
      return found(days > settings.keyRotationDays + KEY_ROTATION_LATE_DAYS, 'KEY_OLD', 'weak', {
        subject: kid,
        fact: `the ${purpose} key has signed for ${Math.floor(days)} days, and the schedule says ${settings.keyRotationDays}`,
        remedy: 'find in the log of auth why the schedule does not rotate it, or call KeyService.RotateKey',
      });
    }),
    ...(['token', 'broadcast'] as const).flatMap((purpose) =>
      found(
        !used.some((key) => key.purpose === purpose && key.state === 'next'),
        'KEY_NEXT_MISSING',
        'weak',
        {
          subject: purpose,
          fact: `there is no next ${purpose} key: an emergency rotation would have to create one first`,
          remedy: 'find in the log of auth why none can be created',
        },
      ),
    ),
    ...found(settings.keyRotationDays > KEY_ROTATION_DAYS_GOOD, 'KEY_ROTATION_SELDOM', 'weak', {
      subject: 'PORTCULLIS_KEY_ROTATION_DAYS',
      fact: `a key signs for ${settings.keyRotationDays} days`,
      remedy: `set it to ${KEY_ROTATION_DAYS_GOOD} or less`,
    }),
  ];
}

const DAY_MS = 86_400_000;

/** Findings about one public key. @param name - the key in a sentence, such as `key abc` */
export function checkKey(
  subject: string,
  name: string,
  { fault, rsaBits = RSA_BITS_STRONG }: KeyFacts,
  remedy: string,
): readonly ReviewFinding[] {
  return [
    ...found(fault !== undefined, 'KEY_UNSAFE', 'critical', {
      subject,
      fact: `${name} is refused: it ${fault}`,
      remedy,
    }),
    ...found(rsaBits < RSA_BITS_STRONG, 'KEY_SMALL', 'weak', {
      subject,
      fact: `${name} is an RSA key of ${rsaBits} bits`,
      remedy,
    }),
  ];
}

export function checkLifetimes({ settings }: ReviewFacts): readonly ReviewFinding[] {
  const { accessTokenSeconds, leaseMs } = settings;
  return [
    ...found(accessTokenSeconds > ACCESS_TOKEN_SECONDS_GOOD, 'ACCESS_TOKEN_LONG', 'weak', {
      subject: 'PORTCULLIS_ACCESS_TOKEN_SECONDS',
      fact: `an access token lives for ${accessTokenSeconds} seconds`,
      remedy: `set it to ${ACCESS_TOKEN_SECONDS_GOOD} or less: verifiers without the revocation list rely on expiry alone`,
    }),
    ...found(leaseMs > LEASE_MS_GOOD, 'LEASE_LONG', 'weak', {
      subject: 'PORTCULLIS_LEASE_MS',
      fact: `when every connection fails, instances enforce a revocation only after ${leaseMs} ms`,
      remedy: `set it to ${LEASE_MS_GOOD} or less`,
    }),
  ];
}
