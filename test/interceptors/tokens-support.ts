/** Claims, keys and tokens for tests of the library. */

import { createHmac, generateKeyPairSync, type KeyObject, randomBytes, randomUUID } from 'node:crypto';
import { CompactSign } from 'jose';
import type { Clock, Timers } from '../../interceptors/src/clock.js';
import { VerifiedToken } from '../../interceptors/src/revocation/verified-tokens.js';
import type { Caller } from '../../interceptors/src/server/admission.js';
import type { TokenClaims } from '../../interceptors/src/token/claims.js';
import { Entry, EntryKind } from '../../proto/gen/portcullis/revocation/v1/revocation.js';
import type { PublicKey } from '../../proto/gen/portcullis/token/v1/token.js';

export const ISSUER = 'https://auth.example';
export const AUDIENCE = 'inventory';
export const NOW_SECONDS = 1_800_000_000;

/** A clock that a test sets. */
export class SetClock implements Clock {
  wall = NOW_SECONDS * 1000;
  monotonic = 50_000;

  wallMs(): number {
    return this.wall;
  }

  monotonicMs(): number {
    return this.monotonic;
  }

  /** Advances both clocks. */
  pass(ms: number): void {
    this.wall += ms;
    this.monotonic += ms;
  }
}

/** Timers that a test fires. */
export class SetTimers implements Timers {
  #nowMs = 0;
  readonly #waiting = new Set<{ readonly atMs: number; readonly work: () => void }>();

  after(ms: number, work: () => void): () => void {
    const timer = { atMs: this.#nowMs + ms, work };
    this.#waiting.add(timer);
    return () => {
      this.#waiting.delete(timer);
    };
  }

  soon(work: () => void): void {
    setImmediate(work);
  }

  /** The number of timers that have neither fired nor been stopped. */
  get waiting(): number {
    return this.#waiting.size;
  }

  /** Fires every timer that is due within `ms` milliseconds, in order. */
  pass(ms: number): void {
    const untilMs = this.#nowMs + ms;
    for (;;) {
      const [next] = [...this.#waiting].sort((one, other) => one.atMs - other.atMs);
      if (next === undefined || next.atMs > untilMs) break;
      this.#nowMs = next.atMs;
      this.#waiting.delete(next);
      next.work();
    }
    this.#nowMs = untilMs;
  }
}

/** The payload of a user's token. */
export function userPayload(): Record<string, unknown> {
  return {
    iss: ISSUER,
    aud: [AUDIENCE, 'payment'],
    sub: 'user-1',
    client_id: 'direct',
    iat: NOW_SECONDS - 10,
    exp: NOW_SECONDS + 290,
    jti: '11111111-1111-4111-8111-111111111111',
    sid: '22222222-2222-4222-8222-222222222222',
    gen: 3,
    scope: 'inventory.read inventory.reserve',
    roles: ['customer'],
    auth_time: NOW_SECONDS - 60,
    amr: ['pwd'],
    clients: [['direct', 1]],
  };
}

/** The payload of a service's own token. */
export function servicePayload(): Record<string, unknown> {
  return {
    iss: ISSUER,
    aud: [AUDIENCE],
    sub: 'payment',
    client_id: 'payment',
    iat: NOW_SECONDS - 10,
    exp: NOW_SECONDS + 290,
    jti: '33333333-3333-4333-8333-333333333333',
    scope: 'auth.sync',
    roles: [],
    clients: [['payment', 7]],
  };
}

/** The payload of a token with which a service acts for a user. */
export function exchangedPayload(): Record<string, unknown> {
  return {
    ...userPayload(),
    client_id: 'payment',
    jti: '44444444-4444-4444-8444-444444444444',
    act: { sub: 'payment' },
    ancestors: ['11111111-1111-4111-8111-111111111111'],
    clients: [
      ['direct', 1],
      ['payment', 7],
    ],
  };
}

/** A caller with or without a client certificate; counts how often it was asked to reconnect. */
export function callerWith(thumbprint?: string): Caller & { retired: number } {
  return {
    retired: 0,
    isPrivate: true,
    certificateThumbprint: thumbprint,
    getPeer: () => 'peer',
    retireConnection() {
      this.retired += 1;
    },
  };
}

/** The claims of a valid user token. */
export function claims(over: Partial<TokenClaims> = {}): TokenClaims {
  return {
    issuer: ISSUER,
    id: 'user-1',
    subject: 'user-1',
    clientId: 'direct',
    tokenId: randomUUID(),
    sessionId: randomUUID(),
    kind: 'USER',
    scopes: new Set(['inventory.read']),
    roles: new Set(['customer']),
    audiences: [AUDIENCE],
    actors: [],
    authTimeSeconds: NOW_SECONDS - 60,
    expiresAtSeconds: NOW_SECONDS + 290,
    generation: 3n,
    clients: [['direct', 1n]],
    ancestors: [],
    origin: undefined,
    issuedAtSeconds: NOW_SECONDS - 10,
    keyId: 'key-1',
    certificateThumbprint: undefined,
    isForeign: false,
    ...over,
  };
}

/** A verified token with a text of its own. */
export function verifiedToken(over: Partial<TokenClaims> = {}, text = randomText()): VerifiedToken {
  return new VerifiedToken(text, claims(over));
}

function randomText(): string {
  return randomBytes(64).toString('base64url');
}

/** The 16 bytes of a UUID. */
export function bytesOf(uuid: string): Buffer {
  return Buffer.from(uuid.replaceAll('-', ''), 'hex');
}

/** When the entries of tests may be dropped, in milliseconds since the epoch. */
export const KEEP_UNTIL_MS = (NOW_SECONDS + 3600) * 1000;

/** An entry of the log. */
export function entry(kind: EntryKind, key: string | Uint8Array, over: Partial<Entry> = {}): Entry {
  return {
    ...Entry.fromPartial({}),
    entryId: randomBytes(16),
    sequence: 1n,
    kind,
    key: typeof key === 'string' ? Buffer.from(key) : Buffer.from(key),
    keepUntil: new Date(KEEP_UNTIL_MS),
    ...over,
  };
}

/** An entry for tokens of another issuer. */
export function foreignEntry(
  kind: EntryKind,
  issuer: string,
  text: string,
  cutOffSeconds = NOW_SECONDS,
  over: Partial<Entry> = {},
): Entry {
  return entry(kind, text, { issuer, cutOffTime: new Date(cutOffSeconds * 1000), ...over });
}

/** An entry that revokes one token. */
export function tokenEntry(tokenId: string, over: Partial<Entry> = {}): Entry {
  return entry(EntryKind.ENTRY_KIND_TOKEN, bytesOf(tokenId), over);
}

/** A key pair that signs tokens for a test. */
export class TestKey {
  readonly privateKey: KeyObject;
  readonly publicKey: KeyObject;
  readonly published: PublicKey;

  constructor(algorithm: string, kid: string = randomUUID(), pair = pairFor(algorithm)) {
    this.privateKey = pair.privateKey;
    this.publicKey = pair.publicKey;
    this.published = { kid, algorithm, jwk: JSON.stringify(pair.publicKey.export({ format: 'jwk' })) };
  }

  /** Signs a payload with the header of its kind of token. */
  sign(payload: object | Uint8Array, header: object = {}): Promise<string> {
    const bytes = payload instanceof Uint8Array ? payload : Buffer.from(JSON.stringify(payload));
    const { kid, algorithm } = this.published;
    return new CompactSign(bytes)
      .setProtectedHeader({ alg: algorithm, kid, typ: 'at+jwt', ...header })
      .sign(this.privateKey);
  }
}

/** A token signed by HMAC with a secret that the attacker chose. */
export function hmacToken(kid: string, secret: string | Uint8Array, payload: object): string {
  const head = [{ alg: 'HS256', kid, typ: 'at+jwt' }, payload]
    .map((part) => Buffer.from(JSON.stringify(part)).toString('base64url'))
    .join('.');
  return `${head}.${createHmac('sha256', secret).update(head).digest('base64url')}`;
}

function pairFor(algorithm: string): { privateKey: KeyObject; publicKey: KeyObject } {
  switch (algorithm) {
    case 'EdDSA':
      return generateKeyPairSync('ed25519');
    case 'ES256':
      return generateKeyPairSync('ec', { namedCurve: 'P-256' });
    default:
      return generateKeyPairSync('rsa', { modulusLength: 2048 });
  }
}
