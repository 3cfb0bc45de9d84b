/** Finds tokens of other issuers, and tokens derived from them, by the values of claims. */

import type { RevocableValues } from '../token/claims.js';
import { memberOf } from './claim-cut-offs.js';

/** What is known of the other issuer's token at the root. */
interface Root {
  readonly issuer: string;
  readonly revocable?: RevocableValues | undefined;
}

/** The tokens of one issuer for which the same claims were read. */
interface Group<Token> {
  readonly claims: ReadonlySet<string>;
  readonly tokens: Set<Token>;
  /** By {@link valueKey}. */
  readonly byValue: Map<string, Set<Token>>;
}

/** The index. A revoked value leads to the tokens that have it, and to those for which its claim was not read. */
export class ClaimIndex<Token> {
  // An issuer has one group, or a few while services read different claims.
  readonly #issuers = new Map<string, Map<string, Group<Token>>>();

  add(root: Root, token: Token): void {
    const claims = claimsOf(root);
    const groups = memberOf(this.#issuers, root.issuer, () => new Map<string, Group<Token>>());
    const group = memberOf(groups, claims.join('\n'), () => ({
      claims: new Set(claims),
      tokens: new Set<Token>(),
      byValue: new Map<string, Set<Token>>(),
    }));
    group.tokens.add(token);
    for (const key of valueKeysOf(root)) memberOf(group.byValue, key, () => new Set<Token>()).add(token);
  }

  remove(root: Root, token: Token): void {
    const groups = this.#issuers.get(root.issuer);
    const name = claimsOf(root).join('\n');
    const group = groups?.get(name);
    if (groups === undefined || group === undefined) return;
    group.tokens.delete(token);
    for (const key of valueKeysOf(root)) {
      const tokens = group.byValue.get(key);
      tokens?.delete(token);
      if (tokens?.size === 0) group.byValue.delete(key);
    }
    if (group.tokens.size > 0) return;
    groups.delete(name);
    if (groups.size === 0) this.#issuers.delete(root.issuer);
  }

  /** The tokens that an entry of kind CLAIM may revoke, whenever they were issued. */
  *find(issuer: string, claim: string, value: string): Iterable<Token> {
    for (const { claims, tokens, byValue } of this.#issuers.get(issuer)?.values() ?? []) {
      if (!claims.has(claim)) yield* tokens;
      else yield* byValue.get(valueKey(claim, value)) ?? [];
    }
  }
}

function claimsOf({ revocable }: Root): readonly string[] {
  return revocable === undefined ? [] : [...revocable.keys()];
}

function valueKeysOf({ revocable }: Root): readonly string[] {
  const keys: string[] = [];
  for (const [claim, values] of revocable ?? [])
    for (const value of values) keys.push(valueKey(claim, value));
  return keys;
}

/** Different pairs have different texts. */
function valueKey(claim: string, value: string): string {
  return `${claim.length} ${claim} ${value}`;
}
