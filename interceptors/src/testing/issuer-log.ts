/** The revocation log of the kit's issuer: in memory, and answering as the issuer does. */

import { createHash, randomBytes } from 'node:crypto';
import {
  type Broadcast,
  Entry,
  type EntryKind,
  type PullResponse,
  type SyncRequest,
  type SyncResponse,
} from '../../gen/portcullis/revocation/v1/revocation.js';
import type { KeySet } from '../../gen/portcullis/token/v1/token.js';
import type { Clock } from '../clock.js';
import { ACCESS_TOKEN_LIFETIME_MAX_SECONDS, CLOCK_SKEW_SECONDS, ID_BYTES } from '../limits.js';
import type { RevocationSource } from '../revocation/feed-runner.js';
import { RevocationList } from '../revocation/list.js';
import type { TokenClaims } from '../token/claims.js';
import type { SigningKey } from './signing.js';

/** How long an entry can revoke a token, in milliseconds. */
const KEEP_MS = (ACCESS_TOKEN_LIFETIME_MAX_SECONDS + CLOCK_SKEW_SECONDS) * 1000;

/** The log, and the sources through which guards follow it. */
export class IssuerLog {
  /** While false, no guard receives anything from the log. */
  isReachable = true;
  readonly #keySet: KeySet;
  readonly #leaseMs: number;
  readonly #clock: Clock;
  readonly #epoch = randomBytes(ID_BYTES);
  readonly #entries: Entry[] = [];
  readonly #list = new RevocationList();
  readonly #listeners = new Set<(written: Broadcast) => void>();

  /** @param options.leaseMs - the length of the lease that the log grants, in milliseconds */
  constructor(options: { key: SigningKey; leaseMs: number; clock: Clock }) {
    const keys = [options.key.published];
    this.#keySet = { version: createHash('sha256').update(JSON.stringify(keys)).digest(), keys };
    this.#leaseMs = options.leaseMs;
    this.#clock = options.clock;
  }

  /**
   * Creates the source of one guard.
   *
   * @param onClosed - called when the guard is closed
   */
  createSource(onClosed: () => void): RevocationSource {
    let listener: ((written: Broadcast) => void) | undefined;
    return {
      sync: async (request) => {
        this.#requireReachable();
        return this.#answer(request);
      },
      pull: () => this.#pull(),
      follow: (onWritten) => {
        listener = onWritten;
        this.#listeners.add(onWritten);
      },
      close: () => {
        if (listener !== undefined) this.#listeners.delete(listener);
        onClosed();
      },
    };
  }

  /** Appends an entry. Every guard that reaches the log has applied it when this returns. */
  append(kind: EntryKind, key: Uint8Array, minGeneration = 0n): void {
    const entry: Entry = {
      ...Entry.fromPartial({}),
      entryId: randomBytes(ID_BYTES),
      sequence: BigInt(this.#entries.length + 1),
      kind,
      key: Buffer.from(key),
      minGeneration,
      keepUntil: new Date(this.#clock.wallMs() + KEEP_MS),
    };
    this.#entries.push(entry);
    this.#list.add(entry);
    if (!this.isReachable) return;
    for (const notify of this.#listeners) notify({ epoch: this.#epoch, entries: [entry] });
  }

  /** Whether an entry revokes a token with these claims. */
  revokes(claims: TokenClaims): boolean {
    return this.#list.revokes(claims);
  }

  #answer(request: SyncRequest): SyncResponse {
    const isOtherEpoch = Buffer.compare(request.epoch, this.#epoch) !== 0;
    const isKnownKeySet = Buffer.compare(request.keySetVersion, this.#keySet.version) === 0;
    return {
      epoch: this.#epoch,
      head: this.#head,
      entryIdAtHead: this.#entryIdAtHead,
      entries: isOtherEpoch ? [] : this.#entries.slice(Number(request.applied)),
      pull: isOtherEpoch,
      keySet: isKnownKeySet ? undefined : this.#keySet,
      broadcastKeys: [],
      horizon: new Date(0),
      epochNumber: 1n,
      fenceWanted: 0n,
      leaseLength: {
        seconds: BigInt(Math.floor(this.#leaseMs / 1000)),
        nanos: Math.round((this.#leaseMs % 1000) * 1_000_000),
      },
    };
  }

  async *#pull(): AsyncGenerator<PullResponse> {
    this.#requireReachable();
    yield { part: { $case: 'entries', value: { entries: [...this.#entries] } } };
    const end = { epoch: this.#epoch, sequence: this.#head, entryId: this.#entryIdAtHead };
    yield { part: { $case: 'end', value: end } };
  }

  get #head(): bigint {
    return BigInt(this.#entries.length);
  }

  get #entryIdAtHead(): Buffer {
    return this.#entries.at(-1)?.entryId ?? Buffer.alloc(0);
  }

  #requireReachable(): void {
    if (!this.isReachable) throw new Error('the test has made the issuer unreachable');
  }
}
