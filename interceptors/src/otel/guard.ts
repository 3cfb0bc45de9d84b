/** A guard's decisions as metrics of OpenTelemetry. */

import { metrics } from '@opentelemetry/api';
import type { Guard } from '../server/guard.js';
import { type GuardObserver, VERIFY_SECONDS_BUCKETS } from '../server/options.js';

/** The name of the instrumentation scope. */
const SCOPE = '@portcullis/guard';

/** The metrics of one guard. */
export interface GuardTelemetry {
  /** The guard's observer. */
  readonly observer: GuardObserver;
  /** Reads the guard's state at every collection. @returns a function that ends this */
  attach(guard: Guard): () => void;
}

/**
 * Metrics of a guard: decisions by method and outcome, rejected tokens, limits, and the state of its revocation list. No
 * attribute names a caller.
 */
export function createGuardTelemetry(): GuardTelemetry {
  const meter = metrics.getMeter(SCOPE);
  const counter = (name: string, description: string) => meter.createCounter(name, { description });
  const decisions = counter('portcullis.decisions', 'Calls decided: admitted, refused or cut.');
  const observed = counter(
    'portcullis.observed_refusals',
    'Calls that mode enforce would have refused or cut.',
  );
  const invalid = counter(
    'portcullis.invalid_tokens',
    'Tokens refused as not valid, by the part that was wrong.',
  );
  const limited = counter('portcullis.limited', 'Calls and connections that a limit has refused or ended.');
  const fenced = counter(
    'portcullis.fence_refused',
    'Transactions of admitted calls that were stopped at a fence, by reason.',
  );
  const forged = counter(
    'portcullis.forged_broadcasts',
    'Messages on the broker that the issuer has not signed.',
  );
  const verify = meter.createHistogram('portcullis.verify.duration', {
    description: 'How long a new token waited for the verdict on its signature.',
    unit: 's',
    advice: { explicitBucketBoundaries: VERIFY_SECONDS_BUCKETS },
  });
  return {
    observer: {
      decided: (path, outcome) => decisions.add(1, { 'rpc.method': path.slice(1), outcome }),
      observed: (path, reason) => observed.add(1, { 'rpc.method': path.slice(1), reason }),
      tokenInvalid: (fault) => invalid.add(1, { fault }),
      limited: (limit) => limited.add(1, { limit }),
      broadcastForged: () => forged.add(1),
      fenceRefused: (reason) => fenced.add(1, { reason }),
      verified: (ms) => verify.record(ms / 1000),
    },
    attach: (guard) => {
      const gauge = (name: string, description: string, unit?: string) =>
        meter.createObservableGauge(name, { description, ...(unit !== undefined && { unit }) });
      const lease = gauge(
        'portcullis.revocation.lease',
        'For how long the revocation list may still be trusted.',
        's',
      );
      const entries = gauge('portcullis.revocation.entries', 'Entries in the revocation list.');
      const current = gauge('portcullis.revocation.current', 'Whether the revocation list may be trusted.');
      const read: Parameters<typeof meter.addBatchObservableCallback>[0] = (result) => {
        const state = guard.state();
        result.observe(lease, state.leaseMs / 1000);
        result.observe(entries, state.entries);
        result.observe(current, Number(state.current));
      };
      meter.addBatchObservableCallback(read, [lease, entries, current]);
      return () => meter.removeBatchObservableCallback(read, [lease, entries, current]);
    },
  };
}
