/** Revocations of other issuers' tokens by the values of claims. */

import type { Entry } from '../../gen/portcullis/revocation/v1/revocation.js';
import type { TokenOrigin } from '../token/claims.js';

/** A revocation by time: every token issued up to the cut-off is revoked. */
export interface CutOff {
  seconds: number;
  keepUntilMs: number;
}

/** The part of a token that is compared with the entries. */
type Root = Pick<TokenOrigin, 'issuer' | 'issuedAtSeconds' | 'revocable'>;

/**
 * The values that are revoked, by issuer and claim. Few entries revoke many tokens, so they are kept as texts.
 *
 * A token whose claims were not read has any value. So an entry also takes effect where a service reads other claims than
 * the issuer of the entry expects, and for tokens that were derived by a version that did not pass the values on.
 */
export class ClaimCutOffs {
  readonly #issuers = new Map<string, Map<string, Map<string, CutOff>>>();
  #size = 0;

  /** Number of values. */
  get size(): number {
    return this.#size;
  }

  /** Adds a value. Of several times for one value the latest counts. */
  add(issuer: string, claim: string, value: string, { seconds, keepUntilMs }: Readonly<CutOff>): void {
    const claims = memberOf(this.#issuers, issuer, () => new Map<string, Map<string, CutOff>>());
    const values = memberOf(claims, claim, () => new Map<string, CutOff>());
    const known = values.get(value);
    if (known === undefined) {
      values.set(value, { seconds, keepUntilMs });
      this.#size += 1;
      return;
    }
    known.seconds = Math.max(known.seconds, seconds);
    known.keepUntilMs = Math.max(known.keepUntilMs, keepUntilMs);
  }

  /** Adds all values of another list. */
  addAll(other: ClaimCutOffs): void {
    for (const [issuer, claims] of other.#issuers) {
      for (const [claim, values] of claims) {
        for (const [value, cutOff] of values) this.add(issuer, claim, value, cutOff);
      }
    }
  }

  /** Drops the values whose `keep_until` is at or before the horizon. */
  dropUntil(horizonMs: number): void {
    for (const [issuer, claims] of this.#issuers) {
      for (const [claim, values] of claims) {
        for (const [value, { keepUntilMs }] of values) {
          if (keepUntilMs > horizonMs) continue;
          values.delete(value);
          this.#size -= 1;
        }
        if (values.size === 0) claims.delete(claim);
      }
      if (claims.size === 0) this.#issuers.delete(issuer);
    }
  }

  revokes({ issuer, issuedAtSeconds, revocable }: Root): boolean {
    const claims = this.#issuers.get(issuer);
    if (claims === undefined) return false;
    for (const [claim, values] of claims) {
      const own = revocable?.get(claim);
      const cutOffs = own === undefined ? values.values() : own.map((value) => values.get(value));
      for (const cutOff of cutOffs) {
        if (cutOff !== undefined && issuedAtSeconds <= cutOff.seconds) return true;
      }
    }
    return false;
  }
}

/** Whether one entry of kind CLAIM revokes a token with these claims. */
export function isRevokedByClaim(
  { issuer, issuedAtSeconds, revocable }: Root,
  entry: Pick<Entry, 'issuer' | 'claim'>,
  { value, seconds }: { readonly value: string; readonly seconds: number },
): boolean {
  if (issuer !== entry.issuer || issuedAtSeconds > seconds) return false;
  return revocable?.get(entry.claim)?.includes(value) ?? true;
}

/** The member with this name, which is created if there is none. */
export function memberOf<Value>(members: Map<string, Value>, name: string, create: () => Value): Value {
  const known = members.get(name);
  if (known !== undefined) return known;
  const created = create();
  members.set(name, created);
  return created;
}
