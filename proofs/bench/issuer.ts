/** An issuer in memory: it signs tokens and answers syncs, without network and database. */

import { createHash, randomBytes, randomUUID } from 'node:crypto';
import type { RevocationSource } from '@portcullis/guard';
import { CompactSign, type CryptoKey, exportJWK, generateKeyPair } from 'jose';
import { Entry, EntryKind, type PullResponse } from '../../proto/gen/portcullis/revocation/v1/revocation.js';
import type { PublicKey } from '../../proto/gen/portcullis/token/v1/token.js';
import { ECHO_AUDIENCE } from './echo.js';

export const BENCH_ISSUER = 'https://issuer.bench.invalid';
export const ID_BYTES = 16;

/** The default lease; long, so that syncs are not part of the measurement. */
const LEASE_MS = 60_000;
const TOKEN_SECONDS = 3600;
const KEEP_MS = 3_665_000;
const IDS_PER_PART = 8192;

export class BenchIssuer {
  readonly published: PublicKey;
  leaseMs = LEASE_MS;
  /** Revoked token ids, 16 bytes each, which only a packed Pull returns. */
  packed: Buffer = Buffer.alloc(0);
  readonly #privateKey: CryptoKey;
  readonly #broadcastKey: PublicKey;
  readonly #epoch = randomBytes(ID_BYTES);
  readonly #idOfLastPacked = randomBytes(ID_BYTES);
  readonly #log: Entry[] = [];

  private constructor(key: IssuerKey, broadcastKey: IssuerKey) {
    this.published = key.published;
    this.#privateKey = key.privateKey;
    this.#broadcastKey = broadcastKey.published;
  }

  static async create(algorithm = 'EdDSA'): Promise<BenchIssuer> {
    return new BenchIssuer(await createKey(algorithm), await createKey('EdDSA'));
  }

  /** The claims of a user's token, as Login creates them. */
  claims(over: Readonly<Record<string, unknown>> = {}): Record<string, unknown> {
    const now = Math.floor(Date.now() / 1000);
    return {
      iss: BENCH_ISSUER,
      aud: [ECHO_AUDIENCE],
      sub: randomUUID(),
      client_id: 'direct',
      iat: now,
      exp: now + TOKEN_SECONDS,
      jti: randomUUID(),
      sid: randomUUID(),
      gen: 1,
      auth_time: now,
      amr: ['pwd'],
      scope: 'echo.call',
      roles: ['customer'],
      clients: [['direct', 1]],
      ...over,
    };
  }

  token(over: Readonly<Record<string, unknown>> = {}): Promise<string> {
    return new CompactSign(Buffer.from(JSON.stringify(this.claims(over))))
      .setProtectedHeader({ alg: this.published.algorithm, kid: this.published.kid, typ: 'at+jwt' })
      .sign(this.#privateKey);
  }

  async tokens(count: number): Promise<string[]> {
    const all: string[] = [];
    for (let start = 0; start < count; start += 256) {
      const part = Array.from({ length: Math.min(256, count - start) }, () => this.token());
      all.push(...(await Promise.all(part)));
    }
    return all;
  }

  /** Appends an entry to the log, which the next sync returns. */
  revoke(kind: EntryKind, key: Uint8Array, minGeneration = 0n): Entry {
    const entry: Entry = {
      ...Entry.fromPartial({}),
      entryId: randomBytes(ID_BYTES),
      sequence: this.#head + 1n,
      kind,
      key: Buffer.from(key),
      minGeneration,
      keepUntil: new Date(Date.now() + KEEP_MS),
    };
    this.#log.push(entry);
    return entry;
  }

  /** The source of a guard in this process. */
  readonly source: RevocationSource = {
    sync: async (request) => {
      const isOther = Buffer.compare(request.epoch, this.#epoch) !== 0;
      const version = createHash('sha256').update(this.published.jwk).digest();
      const isKnown = Buffer.compare(request.keySetVersion, version) === 0;
      return {
        epoch: this.#epoch,
        head: this.#head,
        entryIdAtHead: this.#headEntryId,
        entries: isOther ? [] : this.#log.filter(({ sequence }) => sequence > request.applied),
        // Entries before the beginning of the log are in no sync response.
        pull: isOther || request.applied < this.#packedCount,
        keySet: isKnown ? undefined : { version, keys: [this.published] },
        broadcastKeys: [this.#broadcastKey],
        horizon: new Date(0),
        epochNumber: 1n,
        fenceWanted: 0n,
        leaseLength: { seconds: BigInt(this.leaseMs / 1000), nanos: 0 },
      };
    },
    pull: () => this.#pull(),
  };

  get #packedCount(): bigint {
    return BigInt(this.packed.byteLength / ID_BYTES);
  }

  get #head(): bigint {
    return this.#packedCount + BigInt(this.#log.length);
  }

  get #headEntryId(): Buffer {
    return this.#log.at(-1)?.entryId ?? (this.#packedCount > 0n ? this.#idOfLastPacked : Buffer.alloc(0));
  }

  async *#pull(): AsyncGenerator<PullResponse> {
    for (let start = 0; start < this.packed.byteLength; start += IDS_PER_PART * ID_BYTES) {
      const ids = this.packed.subarray(start, start + IDS_PER_PART * ID_BYTES);
      const keepUntil = new Date(Date.now() + KEEP_MS);
      yield {
        part: {
          $case: 'packed',
          value: { kind: EntryKind.ENTRY_KIND_TOKEN, keepUntil, ids: Buffer.from(ids) },
        },
      };
    }
    yield { part: { $case: 'entries', value: { entries: [...this.#log] } } };
    yield {
      part: {
        $case: 'end',
        value: { epoch: this.#epoch, sequence: this.#head, entryId: this.#headEntryId },
      },
    };
  }
}

interface IssuerKey {
  readonly published: PublicKey;
  readonly privateKey: CryptoKey;
}

async function createKey(algorithm: string): Promise<IssuerKey> {
  const { publicKey, privateKey } = await generateKeyPair(algorithm, { extractable: true });
  const kid = randomBytes(ID_BYTES).toString('base64url');
  return { published: { kid, algorithm, jwk: JSON.stringify(await exportJWK(publicKey)) }, privateKey };
}
