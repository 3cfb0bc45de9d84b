/** What the kit's issuer knows: the generations of users and clients, and the tokens that it signs for them. */

import { randomUUID } from 'node:crypto';
import type { Clock } from '../clock.js';
import { ACCESS_TOKEN_TYPE } from '../limits.js';
import { readClaims, type TokenClaims } from '../token/claims.js';
import { parseCompactToken } from '../token/compact.js';
import { parseJsonObject } from '../token/strict-json.js';
import type { IssuerLog } from './issuer-log.js';
import { type SigningKey, signCompact } from './signing.js';

/** The payload of a token, as it is signed. */
export type TokenPayload = Readonly<Record<string, unknown>>;

/** A signed token. */
export interface SignedToken {
  /** The compact serialization. */
  readonly text: string;
  readonly payload: TokenPayload;
  readonly claims: TokenClaims;
}

/** How long a token is valid. */
export interface Lifetime {
  /** In seconds. */
  readonly lifetimeSeconds: number;
  /** The token expires no later than this, in seconds since the epoch. */
  readonly notAfterSeconds?: number | undefined;
}

/** The generation of users and clients that were never revoked. */
const FIRST_GENERATION = 1n;

/** Signs tokens as the issuer does: with the issuer's name, the times and the identifier that it adds. */
export class Accounts {
  readonly issuer: string;
  /** The audience of tokens for which a test names none. */
  readonly audience: string;
  readonly clock: Clock;
  readonly key: SigningKey;
  readonly #log: IssuerLog;
  readonly #users = new Map<string, bigint>();
  readonly #clients = new Map<string, bigint>();

  constructor(options: { issuer: string; audience: string; clock: Clock; key: SigningKey; log: IssuerLog }) {
    this.issuer = options.issuer;
    this.audience = options.audience;
    this.clock = options.clock;
    this.key = options.key;
    this.#log = options.log;
  }

  /** The generation of a user, who is created when absent. */
  user(id: string): bigint {
    return generationIn(this.#users, id);
  }

  /** The generation of a client, which is created when absent. */
  client(id: string): bigint {
    return generationIn(this.#clients, id);
  }

  /**
   * Raises the generation of a user: older tokens are no longer valid.
   *
   * @returns the new generation; undefined when no such user exists
   */
  raiseUser(id: string): bigint | undefined {
    return raiseIn(this.#users, id);
  }

  /** The same for a client. */
  raiseClient(id: string): bigint | undefined {
    return raiseIn(this.#clients, id);
  }

  /**
   * Reads a token that was signed before.
   *
   * @throws TypeError when a guard would reject it
   */
  read(token: string): SignedToken {
    const payload = parseJsonObject(parseCompactToken(token, ACCESS_TOKEN_TYPE)?.payload ?? Buffer.alloc(0));
    return { text: token, payload: payload ?? {}, claims: this.#claimsOf('the caller', token) };
  }

  get nowSeconds(): number {
    return Math.floor(this.clock.wallMs() / 1000);
  }

  /**
   * Signs a token that is valid from now on.
   *
   * @param who - the persona, for messages
   * @throws TypeError when the guard would reject the claims, Error when the token would be revoked already
   */
  sign(who: string, granted: TokenPayload, { lifetimeSeconds, notAfterSeconds }: Lifetime): SignedToken {
    const iat = this.nowSeconds;
    const exp = Math.min(iat + lifetimeSeconds, notAfterSeconds ?? Number.POSITIVE_INFINITY);
    const payload = { iss: this.issuer, ...granted, iat, exp, jti: randomUUID() };
    const text = signCompact(this.header, payload, this.key);
    const claims = this.#claimsOf(who, text);
    if (this.#log.revokes(claims)) {
      throw new Error(
        `${who} cannot get a token: its session, user, client or subject token was revoked; create a new persona`,
      );
    }
    return { text, payload, claims };
  }

  /** The header of a token. */
  get header(): { readonly alg: string; readonly kid: string; readonly typ: string } {
    const { algorithm, kid } = this.key.published;
    return { alg: algorithm, kid, typ: ACCESS_TOKEN_TYPE };
  }

  /** Reads the claims with the guard's own checks, so that a mistake in a test does not look like a refusal. */
  #claimsOf(who: string, text: string): TokenClaims {
    const token = parseCompactToken(text, ACCESS_TOKEN_TYPE);
    const payload = token && parseJsonObject(token.payload);
    if (token === undefined || payload === undefined) {
      throw new TypeError(`${who} needs a token of ${text.length} characters, which every guard rejects`);
    }
    const expected = { issuer: this.issuer, audience: undefined, nowSeconds: this.nowSeconds };
    const claims = readClaims(payload, token.keyId, expected);
    if (!('fault' in claims)) return claims;
    const value = JSON.stringify(payload[claims.fault]);
    throw new TypeError(
      `${who} cannot exist: every guard rejects a token with the claim ${claims.fault} = ${value}`,
    );
  }
}

function generationIn(generations: Map<string, bigint>, id: string): bigint {
  const generation = generations.get(id) ?? FIRST_GENERATION;
  generations.set(id, generation);
  return generation;
}

function raiseIn(generations: Map<string, bigint>, id: string): bigint | undefined {
  const generation = generations.get(id);
  if (generation === undefined) return undefined;
  generations.set(id, generation + 1n);
  return generation + 1n;
}
