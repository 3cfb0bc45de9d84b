/** The rows of instances in the simulated database. */

import type { PageRequest } from '../../services/auth/records/page.js';
import {
  HISTORY_KEPT_SECONDS,
  INSTANCE_KEPT_SECONDS,
  type InstancePage,
  type InstanceStore,
  type SharedRecord,
} from '../../services/auth/revocation/instance-records.js';
import { type Connection, entriesOf, logOf, timeOf } from './auth-rows.js';
import type { Transaction } from './database.js';

const KEPT_MS = INSTANCE_KEPT_SECONDS * 1000;

/** What one replica has shared of an instance, and when by the database's clock. */
interface InstanceRow {
  readonly replica: Buffer;
  readonly record: SharedRecord;
  readonly atMs: number;
}

/** What the replicas store about instances for each other. */
export function createInstanceStore(connection: Connection): InstanceStore {
  const { world, cluster, process, node } = connection;
  return {
    share: async (replica, records) => {
      if (!world.settings.waits) return;
      await cluster.transaction(process, node(), (transaction) =>
        transaction.statement(() => {
          const atMs = timeOf(transaction).getTime();
          for (const record of records) {
            const key = `${replica.toString('hex')} ${record.instance.toString('hex')}`;
            // No lease counts as a lease that had ended at the request.
            const leaseLeftMs = Math.max(record.leaseLeftMs, -record.ageMs);
            transaction.put('instances', key, { replica, record: { ...record, leaseLeftMs }, atMs });
          }
        }),
      );
    },
    readFromOthers: (replica, withinMs) =>
      cluster.uncommitted(process, node(), (transaction) =>
        transaction.statement(() => {
          const nowMs = timeOf(transaction).getTime();
          const entries = entriesOf(transaction);
          const isCompared = ({ epoch, applied, seen }: SharedRecord): boolean =>
            entries.some(
              (entry) =>
                entry.epoch.equals(epoch) &&
                entry.sequence === applied &&
                seen.some((id) => id.equals(entry.entryId)),
            );
          const heard: SharedRecord[] = [];
          for (const row of transaction.all('instances').values()) {
            const shared = row as InstanceRow;
            const passedMs = nowMs - shared.atMs;
            const ageMs = shared.record.ageMs + passedMs;
            if (shared.replica.equals(replica) || ageMs >= withinMs) continue;
            const applied = isCompared(shared.record) ? shared.record.applied : 0n;
            heard.push({
              ...shared.record,
              ...{ applied, ageMs, leaseLeftMs: shared.record.leaseLeftMs - passedMs },
            });
          }
          return heard;
        }),
      ),
    list: (page) =>
      cluster.uncommitted(process, node(), (transaction) =>
        transaction.statement(() => listOf(transaction, page)),
      ),
    // All instances have one version, and no world revokes by claims.
    unready: () => Promise.resolve([]),
    deleteSilent: () =>
      cluster.transaction(process, node(), (transaction) =>
        transaction.statement(() => {
          for (const [key, row] of [...transaction.all('instances')]) {
            if (ageOf(transaction, row as InstanceRow) > HISTORY_KEPT_SECONDS * 1000)
              transaction.put('instances', key, undefined);
          }
        }),
      ),
  };
}

function ageOf(transaction: Transaction, { record, atMs }: InstanceRow): number {
  return record.ageMs + timeOf(transaction).getTime() - atMs;
}

/** Each instance of a service once, with what it said last, to whichever replica. */
function listOf(transaction: Transaction, { pageSize, pageToken }: PageRequest): InstancePage {
  const nowMs = timeOf(transaction).getTime();
  const latest = new Map<string, InstanceRow>();
  for (const row of transaction.all('instances').values()) {
    const { record } = row as InstanceRow;
    const key = placeOf(record);
    const former = latest.get(key);
    const isLatest =
      former === undefined || ageOf(transaction, row as InstanceRow) < ageOf(transaction, former);
    if (isLatest && ageOf(transaction, row as InstanceRow) < KEPT_MS) latest.set(key, row as InstanceRow);
  }
  const keys = [...latest.keys()].filter((key) => key > pageToken).sort();
  const log = logOf(transaction);
  const instances = keys.slice(0, pageSize).flatMap((key) => {
    const row = latest.get(key);
    if (row === undefined) return [];
    const { service, instance, applied, epoch, leaseLeftMs } = row.record;
    const currentEpoch = epoch.equals(log.epoch);
    const behind = currentEpoch ? log.head - applied : log.head;
    return {
      service,
      instance,
      lastSyncAgeMs: Math.max(0, ageOf(transaction, row)),
      applied,
      lag: behind > 0n ? behind : 0n,
      leaseLeftMs: currentEpoch ? Math.max(0, leaseLeftMs - (nowMs - row.atMs)) : 0,
      currentEpoch,
      description: undefined,
      left: false,
    };
  });
  const last = keys.length > pageSize ? keys[pageSize - 1] : undefined;
  return { instances, nextPageToken: last ?? '' };
}

function placeOf({ service, instance }: SharedRecord): string {
  return `${service} ${instance.toString('hex')}`;
}
