/**
 * Spans and metrics of OpenTelemetry for calls, under the names of the semantic conventions for RPC 1.45
 * (https://opentelemetry.io/docs/specs/semconv/rpc/grpc/).
 */

import {
  InterceptingCall,
  type Interceptor,
  type Metadata,
  ServerInterceptingCall,
  type ServerInterceptor,
  type ServerListener,
  type ServerMethodDefinition,
  status,
} from '@grpc/grpc-js';
import {
  type Attributes,
  type Context,
  context,
  diag,
  metrics,
  propagation,
  type Span,
  SpanKind,
  SpanStatusCode,
  type TextMapGetter,
  type TextMapSetter,
  trace,
} from '@opentelemetry/api';
import { type Clock, systemClock } from '../clock.js';
import { stateOf } from '../server/call-state.js';
import { isPast } from '../wire/deadlines.js';

/** The name of the instrumentation scope. */
const SCOPE = '@portcullis/guard';

/** Upper bounds of the buckets of call durations, in seconds, as the conventions advise. */
const DURATION_SECONDS_BUCKETS = [0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10];

/** Statuses that are faults of the server; the others are answers to the caller (conventions for gRPC, server spans). */
const SERVER_FAULTS: ReadonlySet<status> = new Set([
  status.UNKNOWN,
  status.DEADLINE_EXCEEDED,
  status.UNIMPLEMENTED,
  status.INTERNAL,
  status.UNAVAILABLE,
  status.DATA_LOSS,
]);

/** Options of {@link observeServer} and {@link observeClient}. */
export interface ObserveOptions {
  /** Default: the clocks of this machine. */
  readonly clock?: Clock | undefined;
}

const GETTER: TextMapGetter<Metadata> = {
  keys: (metadata) => Object.keys(metadata.getMap()),
  get: (metadata, key) => metadata.get(key).map(String),
};

const SETTER: TextMapSetter<Metadata> = { set: (metadata, key, value) => metadata.set(key, value) };

/**
 * An interceptor with a span for each call, in the trace of its caller, and the duration of calls
 * (`rpc.server.call.duration`). Handlers run in the context of the span. The span says who called: the client
 * (`portcullis.client.id`) and the kind of caller (`portcullis.caller.kind`); never a user, and never a token. Give it to
 * the server as the first one.
 */
export function observeServer({ clock = systemClock }: ObserveOptions = {}): ServerInterceptor {
  const tracer = trace.getTracer(SCOPE);
  const durations = durationsOf('rpc.server.call.duration', 'Duration of inbound calls.');
  return (method, call) => {
    const attributes = attributesOf(method.path);
    const startedMs = clock.monotonicMs();
    let running: { readonly span: Span; readonly context: Context; readonly metadata: Metadata } | undefined;
    let isEnded = false;

    const end = (code: status): void => {
      if (isEnded) return;
      isEnded = true;
      const ended = { ...attributes, ...outcomeOf(code, SERVER_FAULTS.has(code)) };
      const seconds = (clock.monotonicMs() - startedMs) / 1000;
      attempt(() => durations.record(seconds, ended, running?.context));
      if (running === undefined) return;
      const { span, metadata } = running;
      attempt(() => {
        span.setAttributes({ ...ended, ...callerOf(metadata) });
        if (SERVER_FAULTS.has(code)) span.setStatus({ code: SpanStatusCode.ERROR });
        span.end();
      });
    };
    const within = (step: () => void): void => {
      if (running === undefined) step();
      else context.with(running.context, step);
    };
    const listener: ServerListener = {
      onReceiveMetadata: (metadata, next) => {
        const parent =
          attempt(() => propagation.extract(context.active(), metadata, GETTER)) ?? context.active();
        running = attempt(() => {
          const span = tracer.startSpan(spanNameOf(method), { kind: SpanKind.SERVER, attributes }, parent);
          return { span, metadata, context: trace.setSpan(parent, span) };
        });
        within(() => next(metadata));
      },
      onReceiveMessage: (message, next) => within(() => next(message)),
      onReceiveHalfClose: (next) => within(next),
      onCancel: () => end(isPast(call.getDeadline(), clock) ? status.DEADLINE_EXCEEDED : status.CANCELLED),
    };
    return new ServerInterceptingCall(call, {
      start: (next) => next(listener),
      sendStatus: (sent, next) => {
        end(sent.code ?? status.UNKNOWN);
        next(sent);
      },
    });
  };
}

/**
 * A client interceptor with a span for each call, the duration of calls (`rpc.client.call.duration`), and the context of
 * the trace in the metadata (`traceparent`). Give it to the client before `authenticate`; the token sources have an
 * option for it as well, so that a trace shows the token exchange.
 */
export function observeClient({ clock = systemClock }: ObserveOptions = {}): Interceptor {
  const tracer = trace.getTracer(SCOPE);
  const durations = durationsOf('rpc.client.call.duration', 'Duration of outbound calls.');
  return (options, nextCall) => {
    const { path } = options.method_definition;
    const attributes = attributesOf(path);
    const startedMs = clock.monotonicMs();
    return new InterceptingCall(nextCall(options), {
      start: (given, _listener, next) => {
        // Calls at the same time may share the metadata, and each has a traceparent of its own.
        const metadata = given.clone();
        const parent = context.active();
        const span = attempt(() =>
          tracer.startSpan(path.slice(1), { kind: SpanKind.CLIENT, attributes }, parent),
        );
        const current = span === undefined ? parent : trace.setSpan(parent, span);
        attempt(() => propagation.inject(current, metadata, SETTER));
        next(metadata, {
          onReceiveStatus: (received, pass) => {
            const { code } = received;
            const isFault = code !== status.OK;
            const ended = { ...attributes, ...outcomeOf(code, isFault) };
            attempt(() => durations.record((clock.monotonicMs() - startedMs) / 1000, ended, current));
            attempt(() => {
              span?.setAttributes(ended);
              if (isFault) span?.setStatus({ code: SpanStatusCode.ERROR });
              span?.end();
            });
            pass(received);
          },
        });
      },
    });
  };
}

/** A sampler, processor or propagator of an application may throw. Its fault must not become one of the call. */
function attempt<Result>(step: () => Result): Result | undefined {
  try {
    return step();
  } catch (error) {
    diag.error(`${SCOPE}: OpenTelemetry failed`, error);
    return undefined;
  }
}

function durationsOf(name: string, description: string) {
  return metrics.getMeter(SCOPE).createHistogram(name, {
    description,
    unit: 's',
    advice: { explicitBucketBoundaries: DURATION_SECONDS_BUCKETS },
  });
}

function spanNameOf({ path }: Pick<ServerMethodDefinition<unknown, unknown>, 'path'>): string {
  return path.slice(1);
}

function attributesOf(path: string): Attributes {
  return { 'rpc.system.name': 'grpc', 'rpc.method': path.slice(1) };
}

function outcomeOf(code: status, isFault: boolean): Attributes {
  const name = status[code] ?? String(code);
  return { 'rpc.response.status_code': name, ...(isFault && { 'error.type': name }) };
}

/** Who called, as far as few values are possible. The guard attaches its state to the metadata. */
function callerOf(metadata: Metadata): Attributes {
  const principal = stateOf({ metadata })?.principal;
  if (principal === undefined) return {};
  return { 'portcullis.client.id': principal.clientId, 'portcullis.caller.kind': principal.kind };
}
