/** The revocation log of an issuer in memory: it answers syncs and pulls as the issuer does. */

import { createHash, randomBytes } from 'node:crypto';
import {
  type Broadcast,
  Entry,
  type EntryKind,
  type PullResponse,
  type SyncRequest,
  type SyncResponse,
} from '../../gen/portcullis/revocation/v1/revocation.js';
import type { PublicKey } from '../../gen/portcullis/token/v1/token.js';
import type { Clock } from '../clock.js';
import { ACCESS_TOKEN_LIFETIME_MAX_SECONDS, CLOCK_SKEW_SECONDS, ID_BYTES } from '../limits.js';
import type { RevocationSource } from '../revocation/feed-runner.js';
import { RevocationList } from '../revocation/list.js';
import type { TokenClaims } from '../token/claims.js';

/** How long an entry can revoke a token, in milliseconds. */
const KEEP_MS = (ACCESS_TOKEN_LIFETIME_MAX_SECONDS + CLOCK_SKEW_SECONDS) * 1000;

/** What an issuer answers from. */
export interface LogState {
  readonly epoch: Uint8Array;
  readonly epochNumber: bigint;
  /** The entries in order; the first has sequence 1. */
  readonly entries: readonly Entry[];
  readonly keys: readonly PublicKey[];
  readonly broadcastKeys: readonly PublicKey[];
  readonly fenceWanted: bigint;
  /** Length of the lease, in milliseconds. */
  readonly leaseMs: number;
}

/** Creates the next entry of a log. */
export function nextEntry(
  { entries }: Pick<LogState, 'entries'>,
  { kind, key, minGeneration }: { kind: EntryKind; key: Uint8Array; minGeneration: bigint },
  nowMs: number,
): Entry {
  return {
    ...Entry.fromPartial({}),
    entryId: randomBytes(ID_BYTES),
    sequence: BigInt(entries.length + 1),
    kind,
    key: Buffer.from(key),
    minGeneration,
    keepUntil: new Date(nowMs + KEEP_MS),
  };
}

/** The response to a sync request. */
export function answerSync(state: LogState, request: SyncRequest): SyncResponse {
  const isOtherEpoch = Buffer.compare(request.epoch, state.epoch) !== 0;
  const version = versionOf(state.keys);
  const { head, entryIdAtHead } = headOf(state);
  return {
    epoch: Buffer.from(state.epoch),
    head,
    entryIdAtHead,
    entries: isOtherEpoch ? [] : state.entries.slice(Number(request.applied)),
    pull: isOtherEpoch,
    keySet:
      Buffer.compare(request.keySetVersion, version) === 0 ? undefined : { version, keys: [...state.keys] },
    broadcastKeys: [...state.broadcastKeys],
    horizon: new Date(0),
    epochNumber: state.epochNumber,
    fenceWanted: state.fenceWanted,
    leaseLength: {
      seconds: BigInt(Math.floor(state.leaseMs / 1000)),
      nanos: Math.round((state.leaseMs % 1000) * 1_000_000),
    },
  };
}

/** A list of keys is never changed, so its version is computed once. */
const versions = new WeakMap<readonly PublicKey[], Buffer>();

function versionOf(keys: readonly PublicKey[]): Buffer {
  const version = versions.get(keys) ?? createHash('sha256').update(JSON.stringify(keys)).digest();
  versions.set(keys, version);
  return version;
}

/** The whole log, in the parts of a pull. */
export function answerPull(state: LogState): PullResponse[] {
  const { head: sequence, entryIdAtHead: entryId } = headOf(state);
  const end = { epoch: Buffer.from(state.epoch), sequence, entryId };
  return [
    { part: { $case: 'entries', value: { entries: [...state.entries] } } },
    { part: { $case: 'end', value: end } },
  ];
}

function headOf({ entries }: LogState): { head: bigint; entryIdAtHead: Buffer } {
  return { head: BigInt(entries.length), entryIdAtHead: entries.at(-1)?.entryId ?? Buffer.alloc(0) };
}

/** The log of the kit's issuer, and the sources through which guards follow it. */
export class IssuerLog {
  /** While false, no guard receives anything from the log. */
  isReachable = true;
  readonly #clock: Clock;
  readonly #entries: Entry[] = [];
  readonly #state: LogState;
  readonly #list = new RevocationList();
  readonly #listeners = new Set<(written: Broadcast) => void>();

  /** @param options.leaseMs - the length of the lease that the log grants, in milliseconds */
  constructor(options: { key: PublicKey; leaseMs: number; clock: Clock }) {
    this.#clock = options.clock;
    this.#state = {
      epoch: randomBytes(ID_BYTES),
      epochNumber: 1n,
      entries: this.#entries,
      keys: [options.key],
      // Entries reach the guards without a broker, so nothing is signed for it.
      broadcastKeys: [],
      fenceWanted: 0n,
      leaseMs: options.leaseMs,
    };
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
        return answerSync(this.#state, request);
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
    const entry = nextEntry(this.#state, { kind, key, minGeneration }, this.#clock.wallMs());
    this.#entries.push(entry);
    this.#list.add(entry);
    if (!this.isReachable) return;
    const epoch = Buffer.from(this.#state.epoch);
    for (const notify of this.#listeners) notify({ epoch, entries: [entry] });
  }

  /** Whether an entry revokes a token with these claims. */
  revokes(claims: TokenClaims): boolean {
    return this.#list.revokes(claims);
  }

  async *#pull(): AsyncGenerator<PullResponse> {
    this.#requireReachable();
    yield* answerPull(this.#state);
  }

  #requireReachable(): void {
    if (!this.isReachable) throw new Error('the test has made the issuer unreachable');
  }
}
