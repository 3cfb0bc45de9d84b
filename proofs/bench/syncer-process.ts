/** Instances as a process that syncs with either arm at a fixed rate, and a writer that appends to the log meanwhile. */

import { randomBytes } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';
import { BinaryReader } from '@bufbuild/protobuf/wire';
import { Client, credentials } from '@grpc/grpc-js';
import {
  RevocationServiceService,
  type SyncRequest,
  SyncResponse,
} from '../../proto/gen/portcullis/revocation/v1/revocation.js';
import { tokenMetadata } from '../../scripts/system/calls.js';
import { MIGRATIONS } from '../../services/auth/compose.js';
import type { NewEntry } from '../../services/auth/records/revocations.js';
import { createRevocationRows } from '../../services/auth/revocation/store.js';
import { type Database, openDatabase } from '../../services/common/database/database.js';
import { createLog } from '../../services/common/host/log.js';
import { ID_BYTES } from './issuer.js';
import { executeCommands } from './worker.js';

const READY_MS = 60_000;
const CALL_MS_MAX = 30_000;
/** Entries of one transaction of the writer. */
const APPENDED_TOGETHER = 50;
const APPEND_ATTEMPTS_MAX = 10;
/** Syncs under way at once; with more to send, a run takes longer. */
const IN_FLIGHT_MAX = 32;
const { path, requestSerialize } = RevocationServiceService.sync;

let database: Database | undefined;

const fleets = new Map<number, readonly Instance[]>();

/** What the instances of one port do for a while. */
export interface SyncRun {
  readonly port: number;
  readonly seconds: number;
  /** The time between two syncs of one instance, in milliseconds. */
  readonly everyMs: number;
  /** How far each request is behind the head; `follow`: from the head of the instance's last response. */
  readonly lag: number | 'follow';
  /** How many entries are appended meanwhile, each second. */
  readonly entriesPerSecond: number;
}

/** What a run has measured. */
export interface SyncFigures {
  readonly callMs: readonly number[];
  /** The entries that the responses contained, on average. */
  readonly lag: number;
  /** Responses that required a pull. */
  readonly pulls: number;
  readonly bytes: number;
}

const commands = {
  open: async (url: string): Promise<void> => {
    const log = createLog({ service: 'bench', level: 'silent' });
    database = openDatabase({ url, migrations: MIGRATIONS, log });
    await database.ready(AbortSignal.timeout(READY_MS));
  },

  /** Appends revocations of tokens to the log, in one transaction. */
  append: (count: number): Promise<void> => append(count),

  /** Throws unless the response of every port, decoded, is the same at these distances from the head. */
  compare: async (options: { ports: readonly number[]; token: string; lags: readonly number[] }) => {
    for (const lag of options.lags) {
      const texts = new Set<string>();
      for (const port of options.ports) {
        const caller = new Caller(port, options.token);
        texts.add(textOf(SyncResponse.decode(await caller.call(requestAt(await placeBefore(lag))))));
        caller.close();
      }
      if (texts.size > 1) throw new Error(`the arms respond differently at a lag of ${lag}`);
    }
  },

  /** Connects instances to a port; the first sync of each brings the keys. */
  connect: async (options: { port: number; token: string; count: number }): Promise<void> => {
    const place = await placeBefore(0);
    const instances = Array.from({ length: options.count }, () => new Instance(options, place));
    for (const instance of instances) await instance.sync();
    fleets.set(options.port, instances);
  },

  /**
   * Syncs at a fixed rate. Where the machine is too busy for it, the entries become fewer with the syncs, so that each Sync
   * finds as many new entries.
   */
  run: async (run: SyncRun): Promise<SyncFigures> => {
    const place = await placeBefore(run.lag === 'follow' ? 0 : run.lag);
    const instances = fleets.get(run.port) ?? [];
    for (const instance of instances) instance.begin(place, run.lag === 'follow');
    const startedMs = performance.now();
    const open = new Set<Promise<void>>();
    const total = Math.round((run.seconds * 1000 * instances.length) / run.everyMs);
    const perSync = (run.entriesPerSecond * run.everyMs) / 1000 / instances.length;
    let appended = 0;
    let appending = Promise.resolve();
    for (let sync = 0; sync < total; sync += 1) {
      const waitMs = startedMs + (sync * run.everyMs) / instances.length - performance.now();
      if (waitMs > 0) await sleep(waitMs);
      if (open.size >= IN_FLIGHT_MAX) await Promise.race(open);
      const due = Math.floor(sync * perSync) - appended;
      if (due >= APPENDED_TOGETHER) {
        appended += due;
        await appending;
        appending = append(due);
      }
      const one: Promise<void> | undefined = instances[sync % instances.length]
        ?.sync()
        .finally(() => void (one !== undefined && open.delete(one)));
      if (one !== undefined) open.add(one);
    }
    await Promise.all([...open, appending]);
    const callMs = instances.flatMap((instance) => instance.callMs);
    const sum = (read: (instance: Instance) => number): number =>
      instances.reduce((total, instance) => total + read(instance), 0);
    return {
      callMs,
      lag: sum(({ entries }) => entries) / callMs.length,
      pulls: sum(({ pulls }) => pulls),
      bytes: sum(({ bytes }) => bytes) / callMs.length,
    };
  },
};

export type SyncerCommands = typeof commands;

type Place = Pick<SyncRequest, 'epoch' | 'applied' | 'entryIdAtApplied'>;

function requestAt(place: Place): SyncRequest {
  return {
    service: 'bench',
    instance: randomBytes(ID_BYTES),
    keySetVersion: Buffer.alloc(0),
    seen: [],
    kinds: [],
    claimIds: [],
    description: undefined,
    leaving: false,
    fences: [],
    heldTo: 0n,
    heldDigest: Buffer.alloc(0),
    ...place,
  };
}

/** Sends requests over a connection of its own. */
class Caller {
  readonly #client: Client;
  readonly #token: string;

  constructor(port: number, token: string) {
    const options = { 'grpc.use_local_subchannel_pool': 1 };
    this.#client = new Client(`127.0.0.1:${port}`, credentials.createInsecure(), options);
    this.#token = token;
  }

  call(request: SyncRequest): Promise<Buffer> {
    return new Promise((resolve, reject) => {
      this.#client.makeUnaryRequest(
        path,
        requestSerialize,
        (bytes: Buffer) => bytes,
        request,
        tokenMetadata({ token: this.#token }),
        { deadline: Date.now() + CALL_MS_MAX },
        (error, bytes) => {
          if (error !== null || bytes === undefined) reject(error ?? new Error('no response'));
          else resolve(bytes);
        },
      );
    });
  }

  close(): void {
    this.#client.close();
  }
}

/** An instance that reads of a response only what its next request needs: the load must not cost more than auth. */
class Instance {
  readonly #caller: Caller;
  #follows = false;
  #request: SyncRequest;
  callMs: number[] = [];
  entries = 0;
  pulls = 0;
  bytes = 0;

  constructor({ port, token }: { port: number; token: string }, place: Place) {
    this.#caller = new Caller(port, token);
    this.#request = requestAt(place);
  }

  async sync(): Promise<void> {
    const request = this.#request;
    const calledMs = performance.now();
    const bytes = await this.#caller.call(request);
    this.callMs.push(performance.now() - calledMs);
    const { head, entryIdAtHead, pull, keySetVersion } = headOf(bytes);
    this.bytes += bytes.byteLength;
    this.pulls += pull ? 1 : 0;
    this.entries += Number(head - request.applied);
    if (keySetVersion !== undefined) this.#request = { ...this.#request, keySetVersion };
    if (this.#follows && head > this.#request.applied) {
      this.#request = { ...this.#request, applied: head, entryIdAtApplied: entryIdAtHead };
    }
  }

  /** Begins a run at a place of the log. @param follows - the place moves with the responses */
  begin(place: Place, follows: boolean): void {
    this.#request = { ...this.#request, ...place };
    this.#follows = follows;
    this.callMs = [];
    this.entries = 0;
    this.pulls = 0;
    this.bytes = 0;
  }
}

/** Reads a response without its entries, wherever they are in it. */
function headOf(bytes: Buffer) {
  const reader = new BinaryReader(bytes);
  const head = { head: 0n, entryIdAtHead: Buffer.alloc(0), pull: false };
  let keySetVersion: Buffer | undefined;
  while (reader.pos < reader.len) {
    const [field, wireType] = reader.tag();
    if (field === 2) head.head = BigInt(reader.uint64());
    else if (field === 3) head.entryIdAtHead = Buffer.from(reader.bytes());
    else if (field === 5) head.pull = reader.bool();
    else if (field === 6) keySetVersion = Buffer.from(versionIn(reader.bytes()));
    else reader.skip(wireType, field);
  }
  return { ...head, keySetVersion };
}

function versionIn(keySet: Uint8Array): Uint8Array {
  const reader = new BinaryReader(keySet);
  while (reader.pos < reader.len) {
    const [field, wireType] = reader.tag();
    if (field === 1) return reader.bytes();
    reader.skip(wireType, field);
  }
  return new Uint8Array(0);
}

function textOf(response: SyncResponse): string {
  return JSON.stringify(response, (_, value: unknown) => (typeof value === 'bigint' ? String(value) : value));
}

function openedDatabase(): Database {
  if (database === undefined) throw new TypeError('the database is not open');
  return database;
}

async function append(count: number): Promise<void> {
  if (count === 0) return;
  const entries = Array.from(
    { length: count },
    (): NewEntry => ({
      kind: 'TOKEN',
      issuer: '',
      key: randomBytes(ID_BYTES),
      minGeneration: 0n,
      reason: 'bench',
      actor: 'bench',
    }),
  );
  for (let attempt = 1; ; attempt += 1) {
    try {
      await openedDatabase().transaction((sql) => createRevocationRows(sql, () => undefined).append(entries));
      return;
    } catch (error) {
      // On a busy machine, the transaction may exceed the time for which it may hold the lock of the log.
      if (attempt === APPEND_ATTEMPTS_MAX) throw error;
    }
  }
}

/** The place of an entry so many before the head. */
async function placeBefore(lag: number): Promise<Place> {
  const { rows } = await openedDatabase().query<{ epoch: Buffer; seq: bigint; entry_id: Buffer }>(
    `SELECT entry.epoch, entry.seq, entry.entry_id FROM revocation_entries AS entry
     JOIN log_state ON log_state.epoch = entry.epoch AND log_state.seq - $1 = entry.seq`,
    [BigInt(lag)],
  );
  const [row] = rows;
  if (row === undefined) throw new Error(`the log has no entry ${lag} before its head`);
  return { epoch: row.epoch, applied: row.seq, entryIdAtApplied: row.entry_id };
}

executeCommands(commands);
