/** An issuer in memory, for tests of the library: real keys, real signatures, a log that answers syncs. */

import { randomBytes, randomUUID } from 'node:crypto';
import type { RevocationSource } from '@portcullis/guard';
import { answerPull, answerSync, type LogState, nextEntry } from '@portcullis/guard/internal';
import { CompactSign, type CryptoKey, exportJWK, generateKeyPair } from 'jose';
import {
  Broadcast,
  type Entry,
  EntryKind,
  type PullResponse,
  type SyncRequest,
} from '../../proto/gen/portcullis/revocation/v1/revocation.js';
import type { PublicKey } from '../../proto/gen/portcullis/token/v1/token.js';

export const ISSUER = 'https://issuer.test';
export const AUDIENCE = 'echo';

/** Longer than the interval of syncs before the first lease, in milliseconds. */
const QUIET_MS = 250;

/** A signing key of the test issuer. */
export interface TestKey {
  readonly kid: string;
  readonly privateKey: CryptoKey;
  readonly published: PublicKey;
}

export async function createTestKey(algorithm = 'EdDSA'): Promise<TestKey> {
  const { publicKey, privateKey } = await generateKeyPair(algorithm, { extractable: true });
  const kid = randomBytes(16).toString('base64url');
  return {
    kid,
    privateKey,
    published: { kid, algorithm, jwk: JSON.stringify(await exportJWK(publicKey)) },
  };
}

/** The bytes of a UUID. */
export function idOf(uuid: string): Buffer {
  return Buffer.from(uuid.replaceAll('-', ''), 'hex');
}

/** The claims of a user's token that a test sets. */
export type ClaimOverrides = Readonly<Record<string, unknown>>;

export class TestIssuer {
  /** While false, every sync hangs until it times out. */
  answers = true;
  leaseMs = 2000;
  epoch = randomBytes(16);
  epochNumber = 1n;
  fenceWanted = 0n;
  keys: TestKey[];
  readonly broadcastKey: TestKey;
  readonly log: Entry[] = [];
  asked = 0;
  /** The last sync request. */
  request: SyncRequest | undefined;

  private constructor(key: TestKey, broadcastKey: TestKey) {
    this.keys = [key];
    this.broadcastKey = broadcastKey;
  }

  static async create(): Promise<TestIssuer> {
    return new TestIssuer(await createTestKey(), await createTestKey());
  }

  /** Waits until a guard that is ready has nothing more to ask. @returns how often it was asked */
  async quiet(): Promise<number> {
    await new Promise((resolve) => setTimeout(resolve, QUIET_MS));
    return this.asked;
  }

  get key(): TestKey {
    const key = this.keys[0];
    if (key === undefined) throw new Error('the issuer has no key');
    return key;
  }

  /** The claims of a user token that is valid now. */
  claims(overrides: ClaimOverrides = {}): Record<string, unknown> {
    const now = Math.floor(Date.now() / 1000);
    return {
      iss: ISSUER,
      aud: [AUDIENCE],
      sub: randomUUID(),
      client_id: 'direct',
      iat: now,
      exp: now + 300,
      jti: randomUUID(),
      sid: randomUUID(),
      gen: 1,
      auth_time: now,
      amr: ['pwd'],
      scope: 'echo.call',
      roles: ['customer'],
      clients: [['direct', 1]],
      ...overrides,
    };
  }

  /** Signs claims as an access token. */
  async sign(
    claims: unknown,
    header: Record<string, unknown> = {},
    key: TestKey = this.key,
  ): Promise<string> {
    const payload = typeof claims === 'string' ? claims : JSON.stringify(claims);
    return await new CompactSign(Buffer.from(payload))
      .setProtectedHeader({ alg: key.published.algorithm, kid: key.kid, typ: 'at+jwt', ...header })
      .sign(key.privateKey);
  }

  /** A valid token. */
  token(overrides: ClaimOverrides = {}): Promise<string> {
    return this.sign(this.claims(overrides));
  }

  /** Writes an entry to the log. */
  revoke(kind: EntryKind, key: Uint8Array | string, minGeneration = 0n): Entry {
    const revoked = { kind, key: Buffer.from(key), minGeneration };
    const entry = nextEntry(this.#state, revoked, Date.now());
    this.log.push(entry);
    return entry;
  }

  revokeSession(sid: string): Entry {
    return this.revoke(EntryKind.ENTRY_KIND_SESSION, idOf(sid));
  }

  /** A broadcast of entries, as sent over the wire. */
  async broadcast(
    entries: Entry[],
    key: TestKey = this.broadcastKey,
    epoch: Buffer = this.epoch,
  ): Promise<Buffer> {
    const jws = await new CompactSign(Broadcast.encode({ epoch, entries }).finish())
      .setProtectedHeader({ alg: 'EdDSA', kid: key.kid, typ: 'portcullis-revocations+jws' })
      .sign(key.privateKey);
    return Buffer.from(jws);
  }

  readonly source: RevocationSource = {
    sync: async (request, signal) => {
      this.asked += 1;
      this.request = request;
      if (!this.answers) await hang(signal);
      return answerSync(this.#state, request);
    },
    pull: () => this.#pull(),
  };

  get #state(): LogState {
    const { epoch, epochNumber, fenceWanted, leaseMs, log: entries } = this;
    const keys = this.keys.map(({ published }) => published);
    const broadcastKeys = [this.broadcastKey.published];
    return { epoch, epochNumber, fenceWanted, leaseMs, entries, keys, broadcastKeys };
  }

  async *#pull(): AsyncGenerator<PullResponse> {
    if (!this.answers) throw new Error('the issuer is silent');
    yield* answerPull(this.#state);
  }
}

function hang(signal: AbortSignal): Promise<never> {
  return new Promise((_, reject) => {
    signal.addEventListener('abort', () => reject(signal.reason), { once: true });
  });
}
