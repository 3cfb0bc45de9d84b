/** What tests of admission decide by: rules, tokens that no key has signed, and keys that accept them. */

import { randomUUID } from 'node:crypto';
import type { AccessRule } from '../../../interceptors/src/server/access-rule.js';
import type { Admission } from '../../../interceptors/src/server/admission.js';
import { type CompactToken, parseCompactToken } from '../../../interceptors/src/token/compact.js';
import type { VerificationKeys } from '../../../interceptors/src/token/key-ring.js';
import type { ForeignIssuer } from '../../../interceptors/src/token/trusted-issuers.js';
import { claims, userPayload } from '../tokens-support.js';

/** Rules for any caller, without and with calls on a stale list. */
export const REFUSE: AccessRule = {
  isPublic: false,
  scopes: [],
  roles: [],
  caller: 'ANY',
  maxAuthAgeSeconds: undefined,
  allowStale: false,
  requestBytesMax: Number.POSITIVE_INFINITY,
};
export const ALLOW: AccessRule = { ...REFUSE, allowStale: true };

/** Keys that accept every signature, when the test lets them. */
export class HeldKeys implements VerificationKeys {
  readonly kids: Set<string>;
  isHolding = false;
  verified = 0;
  #waiting: (() => void)[] = [];

  constructor(...kids: string[]) {
    this.kids = new Set(kids);
  }

  has(keyId: string): boolean {
    return this.kids.has(keyId);
  }

  keyIds(): Iterable<string> {
    return this.kids;
  }

  async verify(token: CompactToken): Promise<boolean> {
    this.verified += 1;
    if (this.isHolding) {
      await new Promise<void>((resolve) => {
        this.#waiting.push(resolve);
      });
    }
    return this.kids.has(token.keyId);
  }

  release(): void {
    this.isHolding = false;
    for (const resolve of this.#waiting) resolve();
    this.#waiting = [];
  }
}

/** A token with a meaningless signature. */
export function tokenText(over: Record<string, unknown> = {}, kid = 'key-1'): string {
  const payload = { ...userPayload(), jti: randomUUID(), ...over };
  const encode = (part: object) => Buffer.from(JSON.stringify(part)).toString('base64url');
  return `${encode({ alg: 'EdDSA', kid, typ: 'at+jwt' })}.${encode(payload)}.${Buffer.from(randomUUID()).toString('base64url')}`;
}

/** The values of `authorization` headers with these tokens. */
export function bearer(...texts: string[]): readonly string[] {
  return texts.map((text) => `Bearer ${text}`);
}

/** The decision: admitted, or the reason. */
export function outcomeOf(admission: Admission): string {
  return admission.kind === 'refused' ? admission.error.code : admission.kind;
}

/** Another issuer, whose tokens have the form of our own. */
export function foreignIssuer(issuer: string, keys: HeldKeys): ForeignIssuer {
  return {
    issuer,
    parse: (text) => parseCompactToken(text, 'at+jwt'),
    verify: async (token) => ((await keys.verify(token)) ? { verifiedBy: token.keyId } : 'BAD'),
    has: (key) => keys.has(key),
    read: (_token, keyId) => claims({ issuer, keyId, isForeign: true }),
  };
}
