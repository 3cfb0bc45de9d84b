/** The places of instances: how many may follow the log through one replica of auth. */

import type { Clock } from '@portcullis/guard/clock';
import { invalidField } from '@portcullis/guard/errors';
import { AuthError } from '../errors.js';
import { enforcementBoundMs, type SyncPosition } from './log.js';

/** Maximum number of instances that may hold a lease from one replica of auth. */
export const INSTANCES_MAX = 10_000;

/** Default of the maximum number of instances of one client, at one replica of auth. */
export const INSTANCES_PER_CLIENT_DEFAULT = 500;

/** When an instance without a place should ask again, in milliseconds. */
const NO_PLACE_RETRY_MS = 1000;

/** The limits of instances: of one client, and of the replica of auth. */
export const INSTANCE_LIMITS = ['client', 'process'] as const;

/** One of {@link INSTANCE_LIMITS}. */
export type InstanceLimit = (typeof INSTANCE_LIMITS)[number];

/** The places of one replica. */
export interface InstancePlaces {
  /**
   * Gives the instance of a sync request a place, or renews the one that it has. Only an instance with a place gets a
   * lease, and only its acknowledgements count.
   *
   * @throws ServiceError RATE_LIMITED when no place is free, FIELD_INVALID when another service has this instance id
   */
  take(question: Pick<SyncPosition, 'service' | 'instance'>): void;
  /** An instance got a lease of this length. */
  granted(leaseMs: number): void;
}

interface Place {
  readonly service: string;
  readonly requestedAtMs: number;
}

/**
 * Creates the places. A place is free again when no lease of the instance's last request can be valid any more, so an
 * instance that may still admit calls is never forgotten for another one.
 */
export function createInstancePlaces(options: {
  readonly clock: Clock;
  readonly perClientMax: number;
  /** Called with each refused request. */
  readonly onRefused: (limit: InstanceLimit, service: string) => void;
}): InstancePlaces {
  const { clock, perClientMax, onRefused } = options;
  // In the order of the last requests, so that those whose time is over come first.
  const places = new Map<string, Place>();
  const takenBy = new Map<string, number>();
  let keptMs = 0;

  const leave = (key: string, { service }: Place): void => {
    places.delete(key);
    const left = (takenBy.get(service) ?? 0) - 1;
    if (left > 0) takenBy.set(service, left);
    else takenBy.delete(service);
  };
  const leaveExpired = (nowMs: number): void => {
    for (const [key, place] of places) {
      if (nowMs - place.requestedAtMs <= keptMs) return;
      leave(key, place);
    }
  };
  const refuse = (limit: InstanceLimit, service: string): never => {
    onRefused(limit, service);
    const whose = limit === 'client' ? `client ${service}` : 'this replica of auth';
    throw new AuthError('RATE_LIMITED', `too many instances of ${whose}`, {
      retryAfterMs: NO_PLACE_RETRY_MS,
    });
  };

  return {
    take: ({ service, instance }) => {
      const nowMs = clock.monotonicMs();
      const key = instance.toString('hex');
      const former = places.get(key);
      // What one service acknowledges must never count for an instance of another.
      if (former !== undefined && former.service !== service) {
        throw invalidField('instance', 'must not be the id of an instance of another service');
      }
      if (former === undefined) {
        leaveExpired(nowMs);
        if ((takenBy.get(service) ?? 0) >= perClientMax) refuse('client', service);
        if (places.size >= INSTANCES_MAX) refuse('process', service);
      } else {
        leave(key, former);
      }
      places.set(key, { service, requestedAtMs: nowMs });
      takenBy.set(service, (takenBy.get(service) ?? 0) + 1);
    },
    granted: (leaseMs) => {
      keptMs = Math.max(keptMs, enforcementBoundMs(leaseMs));
    },
  };
}
