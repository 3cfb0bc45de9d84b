/** The JWK Set of another issuer (RFC 7517 §5): its usable keys, found by `kid` and algorithm. */

import { KEYS_MAX } from '../limits.js';
import type { CompactToken } from './compact.js';
import { checkPublicKey, type SignatureAlgorithm } from './key-checks.js';
import type { VerificationKey } from './key-ring.js';
import { isJsonObject, type JsonObject, type JsonValue, parseJsonObject } from './strict-json.js';

/** Maximum number of keys with the same `kid` and algorithm. Each is tried when such a token arrives. */
export const KEYS_PER_KID_MAX = 4;

/** Maximum length of a `kid`, in characters. */
const KID_LENGTH_MAX = 255;

/** A key of a set. Its `keyId` is the `kid`; empty without one. */
export interface KeyOfSet extends VerificationKey {
  /** Identifies the key itself, whatever its `kid` (RFC 7638). */
  readonly thumbprint: string;
}

/** The usable keys of a set. Immutable: a new set is a new object. */
export class KeySet {
  readonly #keys: readonly KeyOfSet[];
  readonly #thumbprints: ReadonlySet<string>;
  /** Why members are not used that look as if they should be: one sentence for each, without keys. */
  readonly refused: readonly string[];

  private constructor(keys: readonly KeyOfSet[], refused: readonly string[]) {
    this.#keys = keys;
    this.#thumbprints = new Set(keys.map(({ thumbprint }) => thumbprint));
    this.refused = refused;
  }

  static readonly EMPTY = new KeySet([], []);

  /**
   * Reads a JWK Set. A member that cannot be used costs only itself. Members for other purposes (`use`, `key_ops`, another
   * `alg` or type than configured) are ignored.
   *
   * @param algorithms - the algorithms of the issuer's tokens
   * @throws Error when the bytes are no JWK Set, or no member can be used
   */
  static async parse(bytes: Uint8Array, algorithms: readonly SignatureAlgorithm[]): Promise<KeySet> {
    const members = parseJsonObject(bytes)?.['keys'];
    if (!Array.isArray(members)) throw new Error('expected a JWK Set');
    const keys: KeyOfSet[] = [];
    const refused: string[] = [];
    for (const [index, member] of (members as readonly JsonValue[]).entries()) {
      const read = await readMember(member, algorithms, keys);
      if (read === undefined) continue;
      if ('fault' in read) refused.push(`${nameOf(member, index)} ${read.fault}`);
      else keys.push(read);
    }
    if (keys.length > 0) return new KeySet(keys, refused);
    throw new Error(['the key set contains no usable key', ...refused.slice(0, 1)].join(': '));
  }

  /** Whether a key with this thumbprint is in the set. */
  has(thumbprint: string): boolean {
    return this.#thumbprints.has(thumbprint);
  }

  /**
   * The keys that may have signed a token: those with its `kid` and algorithm. For a token without `kid`, those without
   * one, or the only key of the set (compare OpenID Connect Core §10.1).
   */
  candidatesFor({ keyId, algorithm }: CompactToken): readonly KeyOfSet[] {
    const found = this.#keys.filter((key) => key.keyId === keyId && key.algorithm === algorithm);
    if (keyId !== '' || this.#keys.length !== 1) return found;
    return this.#keys.filter((key) => key.algorithm === algorithm);
  }
}

/** @returns the key, or what is wrong with it; undefined when it has another purpose, or is among the keys already */
async function readMember(
  member: JsonValue,
  accepted: readonly SignatureAlgorithm[],
  keys: readonly KeyOfSet[],
): Promise<KeyOfSet | { readonly fault: string } | undefined> {
  if (!isJsonObject(member)) return { fault: 'must be an object' };
  if (isForOthers(member, accepted)) return undefined;
  const { kid = '' } = member;
  if (keys.length >= KEYS_MAX) return { fault: `is left out: the set has more than ${KEYS_MAX} usable keys` };
  const isKid = typeof kid === 'string' && kid.length <= KID_LENGTH_MAX && (kid !== '' || !('kid' in member));
  if (!isKid) return { fault: `must have a kid of 1 to ${KID_LENGTH_MAX} characters, or none` };
  const checked = await checkPublicKey({ jwk: member });
  if ('fault' in checked) return checked.kind === 'PURPOSE' ? undefined : checked;
  const { key, thumbprint } = checked;
  const [algorithm, second] = checked.algorithms.filter((name) => accepted.includes(name));
  if (algorithm === undefined) return undefined;
  // A key verifies one algorithm (RFC 8725 §3.1).
  if (second !== undefined)
    return { fault: `must have an alg, because both ${algorithm} and ${second} fit it` };
  const alike = keys.filter((other) => other.keyId === kid && other.algorithm === algorithm);
  if (alike.some((other) => other.thumbprint === thumbprint)) return undefined;
  if (alike.length >= KEYS_PER_KID_MAX) {
    return { fault: `is left out: more than ${KEYS_PER_KID_MAX} keys have its kid and alg` };
  }
  return { keyId: kid, algorithm, key, thumbprint };
}

/** Whether a member has another purpose than the signatures of tokens with these algorithms. */
function isForOthers({ kty, crv, use, alg }: JsonObject, algorithms: readonly SignatureAlgorithm[]): boolean {
  if (use !== undefined && use !== 'sig') return true;
  // RFC 9864 gives the algorithm of Ed25519 a second name.
  const named = alg === 'Ed25519' ? 'EdDSA' : alg;
  return !algorithms.some((name) => fits(name, kty, crv) && (named === undefined || named === name));
}

/** Names a member in a sentence for the log. */
function nameOf(member: JsonValue, index: number): string {
  const kid = isJsonObject(member) ? member['kid'] : undefined;
  return typeof kid === 'string' ? `key ${JSON.stringify(kid.slice(0, 64))}` : `member ${index}`;
}

function fits(
  algorithm: SignatureAlgorithm,
  kty: JsonValue | undefined,
  crv: JsonValue | undefined,
): boolean {
  switch (algorithm) {
    case 'EdDSA':
      return kty === 'OKP' && crv === 'Ed25519';
    case 'ES256':
      return kty === 'EC' && crv === 'P-256';
    case 'RS256':
    case 'PS256':
      return kty === 'RSA';
  }
}
