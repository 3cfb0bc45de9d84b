/** Metrics of calls, under the names of go-grpc-middleware. */

import type { Metadata, ServerInterceptor, ServerListener } from '@grpc/grpc-js';
import { ServerInterceptingCall, status } from '@grpc/grpc-js';
import type { Registry } from 'prom-client';
import { Counter, Histogram } from 'prom-client';
import { type Clock, systemClock } from '../clock.js';
import { isPast } from '../wire/deadlines.js';

/** Upper bounds of the buckets of `grpc_server_handling_seconds`. */
const HANDLING_SECONDS_BUCKETS = [
  0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10,
];

/** A call that has ended. */
export interface EndedCall {
  readonly path: string;
  readonly code: status;
  /** Time from the headers of the call to its status, in seconds. */
  readonly seconds: number;
  /** The metadata of the request; undefined when the call ended before them. */
  readonly metadata: Metadata | undefined;
}

/** Options of {@link createCallMetrics}. */
export interface CallMetricsOptions {
  /** Default: the clocks of this machine. */
  readonly clock?: Clock | undefined;
  /** Called with every call that has ended, for a log. It must not throw. */
  readonly onEnd?: ((call: EndedCall) => void) | undefined;
}

/**
 * An interceptor that counts calls and messages. Give it to the server as the first one, so that it also sees the calls
 * that other interceptors reject. Unknown methods never reach an interceptor, so callers cannot make the number of labels
 * grow.
 */
export function createCallMetrics(
  registry: Registry,
  { clock = systemClock, onEnd }: CallMetricsOptions = {},
): ServerInterceptor {
  const countsByPath = createCounts(registry);
  return (method, call) => {
    const counts = countsByPath(method);
    const startedMs = clock.monotonicMs();
    let metadata: Metadata | undefined;
    let ended = false;
    counts.started++;

    function end(code: status): void {
      if (ended) return;
      ended = true;
      const seconds = (clock.monotonicMs() - startedMs) / 1_000;
      counts.handled.set(code, (counts.handled.get(code) ?? 0) + 1);
      counts.observeSeconds(seconds);
      onEnd?.({ path: method.path, code, seconds, metadata });
    }

    const listener: ServerListener = {
      onReceiveMetadata: (received, next) => {
        metadata = received;
        next(received);
      },
      onReceiveMessage: (message, next) => {
        counts.received++;
        next(message);
      },
      // Also emitted after a status was sent, and when grpc-js itself ends the call at its deadline.
      onCancel: () => end(isPast(call.getDeadline(), clock) ? status.DEADLINE_EXCEEDED : status.CANCELLED),
    };
    return new ServerInterceptingCall(call, {
      start: (next) => next(listener),
      sendMessage: (message, next) => {
        counts.sent++;
        next(message);
      },
      sendStatus: (sent, next) => {
        end(sent.code ?? status.UNKNOWN);
        next(sent);
      },
    });
  };
}

/** The counts of one method: plain numbers, because looking up a labelled counter in each call would cost more. */
interface MethodCounts {
  readonly labels: { grpc_type: string; grpc_service: string; grpc_method: string };
  started: number;
  received: number;
  sent: number;
  readonly handled: Map<status, number>;
  readonly observeSeconds: (seconds: number) => void;
}

interface Method {
  readonly path: string;
  readonly requestStream: boolean;
  readonly responseStream: boolean;
}

function createCounts(registry: Registry): (method: Method) => MethodCounts {
  const byPath = new Map<string, MethodCounts>();
  const histogram = new Histogram({
    name: 'grpc_server_handling_seconds',
    help: 'Seconds from the headers of a call to its status.',
    labelNames: LABELS,
    buckets: HANDLING_SECONDS_BUCKETS,
    registers: [registry],
  });
  registerCounter(
    registry,
    byPath,
    'grpc_server_started_total',
    'Calls that began.',
    (counts) => counts.started,
  );
  registerCounter(
    registry,
    byPath,
    'grpc_server_msg_received_total',
    'Messages received from callers.',
    (counts) => counts.received,
  );
  registerCounter(
    registry,
    byPath,
    'grpc_server_msg_sent_total',
    'Messages sent to callers.',
    (counts) => counts.sent,
  );
  registerHandled(registry, byPath);
  return (method) => {
    const known = byPath.get(method.path);
    if (known !== undefined) return known;
    const labels = labelsOf(method);
    const child = histogram.labels(labels);
    const observeSeconds = (seconds: number) => child.observe(seconds);
    const counts: MethodCounts = {
      labels,
      started: 0,
      received: 0,
      sent: 0,
      handled: new Map(),
      observeSeconds,
    };
    byPath.set(method.path, counts);
    return counts;
  };
}

const LABELS = ['grpc_type', 'grpc_service', 'grpc_method'] as const;

function registerCounter(
  registry: Registry,
  byPath: ReadonlyMap<string, MethodCounts>,
  name: string,
  help: string,
  count: (counts: MethodCounts) => number,
): void {
  const counter: Counter<string> = new Counter({
    name,
    help,
    labelNames: LABELS,
    registers: [registry],
    collect: () => {
      counter.reset();
      for (const counts of byPath.values()) counter.inc(counts.labels, count(counts));
    },
  });
}

function registerHandled(registry: Registry, byPath: ReadonlyMap<string, MethodCounts>): void {
  const counter: Counter<string> = new Counter({
    name: 'grpc_server_handled_total',
    help: 'Calls that ended, by status.',
    labelNames: [...LABELS, 'grpc_code'],
    registers: [registry],
    collect: () => {
      counter.reset();
      for (const { labels, handled } of byPath.values()) {
        for (const [code, count] of handled) counter.inc({ ...labels, grpc_code: codeName(code) }, count);
      }
    },
  });
}

function labelsOf({ path, requestStream, responseStream }: Method): MethodCounts['labels'] {
  const [, grpc_service = '', grpc_method = ''] = path.split('/');
  const streamed = responseStream ? 'server_stream' : 'unary';
  const grpc_type = requestStream ? (responseStream ? 'bidi_stream' : 'client_stream') : streamed;
  return { grpc_type, grpc_service, grpc_method };
}

/** The codes in Go's spelling, which dashboards for these metrics expect: `NotFound`, and `OK`. */
function codeName(code: status): string {
  if (code === status.OK) return 'OK';
  if (code === status.CANCELLED) return 'Canceled';
  const words = (status[code] ?? 'UNKNOWN').toLowerCase().split('_');
  return words.map((word) => word.charAt(0).toUpperCase() + word.slice(1)).join('');
}
