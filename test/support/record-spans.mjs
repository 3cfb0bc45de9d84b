/**
 * Loaded before a service, as `record-spans.mjs?FILE`: an SDK of OpenTelemetry that appends a line of JSON to the file for
 * each span.
 */

import { appendFileSync } from 'node:fs';
import { context, propagation, trace } from '@opentelemetry/api';
import { AsyncLocalStorageContextManager } from '@opentelemetry/context-async-hooks';
import { W3CTraceContextPropagator } from '@opentelemetry/core';
import { BasicTracerProvider, SimpleSpanProcessor } from '@opentelemetry/sdk-trace-base';

const file = decodeURIComponent(new URL(import.meta.url).search.slice(1));

/** @type {import('@opentelemetry/sdk-trace-base').SpanExporter} */
const exporter = {
  export: (spans, done) => {
    for (const span of spans) {
      const { traceId, spanId } = span.spanContext();
      const parent = span.parentSpanContext?.spanId;
      const { name, kind, attributes } = span;
      appendFileSync(
        file,
        `${JSON.stringify({ service: process.argv[1], traceId, spanId, parent, name, kind, attributes })}\n`,
      );
    }
    done({ code: 0 });
  },
  shutdown: async () => {},
};

context.setGlobalContextManager(new AsyncLocalStorageContextManager().enable());
propagation.setGlobalPropagator(new W3CTraceContextPropagator());
trace.setGlobalTracerProvider(
  new BasicTracerProvider({ spanProcessors: [new SimpleSpanProcessor(exporter)] }),
);
