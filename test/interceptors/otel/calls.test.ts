/** Spans and metrics of OpenTelemetry: their names, what they say of the caller, and one trace through two services. */

import { Client, credentials, type Metadata, Server, ServerCredentials } from '@grpc/grpc-js';
import { context, metrics, propagation, SpanKind, SpanStatusCode, trace } from '@opentelemetry/api';
import { AsyncLocalStorageContextManager } from '@opentelemetry/context-async-hooks';
import { CompositePropagator, W3CBaggagePropagator, W3CTraceContextPropagator } from '@opentelemetry/core';
import { MeterProvider, MetricReader } from '@opentelemetry/sdk-metrics';
import {
  BasicTracerProvider,
  InMemorySpanExporter,
  type ReadableSpan,
  SimpleSpanProcessor,
} from '@opentelemetry/sdk-trace-base';
import { codeRules, createGuard, type Guard } from '@portcullis/guard';
import { createGuardTelemetry, observeClient, observeServer } from '@portcullis/guard/opentelemetry';
import { expect } from 'chai';
import { bearer, callEcho, identity } from '../../support/echo.js';
import { AUDIENCE, ISSUER, TestIssuer } from '../../support/issuer.js';
import { outcomeOf } from '../../support/outcomes.js';
import { until } from '../../support/waiting.js';

class Reader extends MetricReader {
  protected async onForceFlush(): Promise<void> {}
  protected async onShutdown(): Promise<void> {}

  /** The data points of a metric. */
  async points(name: string): Promise<readonly { attributes: object; value: unknown }[]> {
    const { resourceMetrics } = await this.collect();
    return resourceMetrics.scopeMetrics
      .flatMap((scope) => scope.metrics)
      .filter(({ descriptor }) => descriptor.name === name)
      .flatMap(({ dataPoints }) => dataPoints as { attributes: object; value: unknown }[]);
  }
}

const SERVICE = {
  Unary: {
    path: '/test.v1.EchoService/Unary',
    requestStream: false as const,
    responseStream: false as const,
    requestSerialize: identity,
    requestDeserialize: identity,
    responseSerialize: identity,
    responseDeserialize: identity,
  },
};
const RULES = codeRules(SERVICE, { Unary: { scopes: 'echo.call' } });

type Handler = (metadata: Metadata) => Promise<Buffer>;

describe('OpenTelemetry', () => {
  let spans: InMemorySpanExporter;
  let reader: Reader;
  let issuer: TestIssuer;
  let metadata: Metadata;
  const closing: (() => Promise<void> | void)[] = [];

  beforeEach(async () => {
    spans = new InMemorySpanExporter();
    reader = new Reader();
    trace.setGlobalTracerProvider(
      new BasicTracerProvider({ spanProcessors: [new SimpleSpanProcessor(spans)] }),
    );
    metrics.setGlobalMeterProvider(new MeterProvider({ readers: [reader] }));
    propagation.setGlobalPropagator(new W3CTraceContextPropagator());
    context.setGlobalContextManager(new AsyncLocalStorageContextManager().enable());
    issuer = await TestIssuer.create();
    metadata = bearer(await issuer.token({ sub: 'b8a35f5c-0000-4000-8000-0000000000aa' }));
  });

  afterEach(async () => {
    for (const close of closing.splice(0).reverse()) await close();
    for (const api of [trace, metrics, propagation, context]) api.disable();
  });

  async function serve(handle: Handler): Promise<{ client: Client; guard: Guard }> {
    const telemetry = createGuardTelemetry();
    const guard = await createGuard({
      issuer: ISSUER,
      audience: AUDIENCE,
      auth: { source: issuer.source },
      log: 'silent',
      observer: telemetry.observer,
    });
    closing.push(() => guard.close(), telemetry.attach(guard));
    const server = new Server({ interceptors: [observeServer(), guard.interceptor] });
    guard.addService(server, SERVICE, RULES, { Unary: (_request, call) => handle(call.metadata) });
    const port = await new Promise<number>((resolve, reject) => {
      server.bindAsync('127.0.0.1:0', ServerCredentials.createInsecure(), (error, bound) =>
        error === null ? resolve(bound) : reject(error),
      );
    });
    const client = new Client(`127.0.0.1:${port}`, credentials.createInsecure(), {
      interceptors: [observeClient()],
    });
    closing.push(
      () => server.forceShutdown(),
      () => client.close(),
    );
    await guard.ready;
    return { client, guard };
  }

  const hello: Handler = async () => Buffer.from('hello');

  async function ended(count: number): Promise<readonly ReadableSpan[]> {
    await until(() => spans.getFinishedSpans().length === count);
    return spans.getFinishedSpans();
  }

  it('has one trace through two services, whose handlers run in the context of their spans', async () => {
    const inner = await serve(hello);
    const outer = await serve(() => callEcho(inner.client, metadata));
    await callEcho(outer.client, metadata);
    const all = await ended(4);
    expect(new Set(all.map((span) => span.spanContext().traceId))).to.have.property('size', 1);
    const named = (id: string | undefined): string | undefined =>
      all.find((span) => span.spanContext().spanId === id)?.kind.toString();
    const innerServer = all[0];
    const chain: (string | undefined)[] = [];
    for (let span = innerServer; span !== undefined; ) {
      chain.push(named(span.spanContext().spanId));
      const parent: string | undefined = span.parentSpanContext?.spanId;
      span = all.find((other) => other.spanContext().spanId === parent);
    }
    const { SERVER, CLIENT } = SpanKind;
    expect(chain).to.deep.equal([SERVER, CLIENT, SERVER, CLIENT].map(String));
  });

  it('says what was called, how it ended, and through which client; not by whom', async () => {
    const { client } = await serve(hello);
    await callEcho(client, metadata);
    await outcomeOf(callEcho(client));
    const server = (await ended(4)).filter(({ kind }) => kind === SpanKind.SERVER);
    const common = { 'rpc.system.name': 'grpc', 'rpc.method': 'test.v1.EchoService/Unary' };
    expect(server.map(({ name }) => name)).to.deep.equal([
      'test.v1.EchoService/Unary',
      'test.v1.EchoService/Unary',
    ]);
    expect(server.map(({ attributes }) => ({ ...attributes }))).to.deep.equal([
      {
        ...common,
        'rpc.response.status_code': 'OK',
        'portcullis.client.id': 'direct',
        'portcullis.caller.kind': 'USER',
      },
      { ...common, 'rpc.response.status_code': 'UNAUTHENTICATED' },
    ]);
    expect(server.map(({ status: { code } }) => code)).to.deep.equal([
      SpanStatusCode.UNSET,
      SpanStatusCode.UNSET,
    ]);
    const written = JSON.stringify(
      spans.getFinishedSpans().map(({ attributes, events }) => [attributes, events]),
    );
    expect(written)
      .not.to.include('0000000000aa')
      .and.not.include(String(metadata.get('authorization')[0]));
  });

  it('marks the faults of the server as errors, and at the client every failure', async () => {
    const { client } = await serve(async () => {
      throw new TypeError('broken');
    });
    await outcomeOf(callEcho(client, metadata));
    const all = await ended(2);
    expect(all.map(({ status: { code } }) => code)).to.deep.equal([
      SpanStatusCode.ERROR,
      SpanStatusCode.ERROR,
    ]);
    expect(all.map(({ attributes }) => attributes['error.type'])).to.deep.equal(['INTERNAL', 'INTERNAL']);
  });

  it('has the end of a call whose caller left', async () => {
    const { client } = await serve(() => new Promise(() => undefined));
    const outcome = await outcomeOf(callEcho(client, metadata, { deadline: Date.now() + 50 }));
    expect(outcome).to.equal('DEADLINE_EXCEEDED');
    const server = (await ended(2)).find(({ kind }) => kind === SpanKind.SERVER);
    expect(server?.attributes['rpc.response.status_code']).to.be.oneOf(['DEADLINE_EXCEEDED', 'CANCELLED']);
  });

  it('serves calls although a sampler, a processor or a propagator throws', async () => {
    const fail = (): never => {
      throw new Error('broken SDK');
    };
    const processor = { onStart: fail, onEnd: fail, forceFlush: async () => {}, shutdown: async () => {} };
    const broken = [
      new BasicTracerProvider({ sampler: { shouldSample: fail } }),
      new BasicTracerProvider({ spanProcessors: [processor] }),
      new BasicTracerProvider({ spanProcessors: [{ ...processor, onStart: () => {} }] }),
    ];
    for (const provider of broken) {
      trace.disable();
      trace.setGlobalTracerProvider(provider);
      const { client } = await serve(hello);
      expect((await callEcho(client, metadata)).toString()).to.equal('hello');
    }
    propagation.disable();
    propagation.setGlobalPropagator({ inject: fail, extract: fail, fields: () => [] });
    const { client } = await serve(hello);
    expect((await callEcho(client, metadata)).toString()).to.equal('hello');
  });

  it('begins a new trace when a stranger sends a malformed one, and names nothing that the stranger sent', async () => {
    propagation.disable();
    propagation.setGlobalPropagator(
      new CompositePropagator({ propagators: [new W3CTraceContextPropagator(), new W3CBaggagePropagator()] }),
    );
    const { client } = await serve(hello);
    const valid = '00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01';
    const hostile: Readonly<Record<string, readonly string[]>>[] = [
      { traceparent: ['mark'] },
      { traceparent: [`ff${valid.slice(2)}`] },
      { traceparent: ['00-00000000000000000000000000000000-0000000000000000-01'] },
      { traceparent: [valid.repeat(80)] },
      { traceparent: ['mark', ...Array<string>(30).fill(valid)] },
      { tracestate: ['mark='.repeat(700)], baggage: ['%zz=%zz,__proto__=mark,constructor=mark'] },
      { baggage: Array<string>(60).fill('mark=%00%F0%9F%92%A9;mark') },
    ];
    for (const headers of hostile) {
      const sent = metadata.clone();
      for (const [name, values] of Object.entries(headers)) for (const value of values) sent.add(name, value);
      // An untraced caller: the client's own span would replace what is sent.
      const stranger = new Client(client.getChannel().getTarget(), credentials.createInsecure());
      closing.push(() => stranger.close());
      expect((await callEcho(stranger, sent)).toString()).to.equal('hello');
    }
    const all = await ended(hostile.length);
    expect(all.map(({ parentSpanContext }) => parentSpanContext)).to.deep.equal(hostile.map(() => undefined));
    expect(JSON.stringify(all.map(({ attributes, events, name }) => [attributes, events, name]))).not.include(
      'mark',
    );
  });

  it('leaves the metadata of the caller as it is', async () => {
    const { client } = await serve(hello);
    await callEcho(client, metadata);
    expect(Object.keys(metadata.getMap())).to.deep.equal(['authorization']);
  });

  it('has metrics of calls, decisions and the revocation list', async () => {
    const { client, guard } = await serve(hello);
    await callEcho(client, metadata);
    await outcomeOf(callEcho(client));
    const method = { 'rpc.method': 'test.v1.EchoService/Unary' };
    const durations = await reader.points('rpc.server.call.duration');
    expect(durations.map(({ attributes }) => attributes)).to.deep.include({
      ...method,
      'rpc.system.name': 'grpc',
      'rpc.response.status_code': 'OK',
    });
    expect(await reader.points('rpc.client.call.duration')).to.have.lengthOf(2);
    const decisions = await reader.points('portcullis.decisions');
    expect(decisions.map(({ attributes, value }) => ({ ...attributes, value }))).to.have.deep.members([
      { ...method, outcome: 'ADMITTED', value: 1 },
      { ...method, outcome: 'TOKEN_MISSING', value: 1 },
    ]);
    expect((await reader.points('portcullis.revocation.current')).map(({ value }) => value)).to.deep.equal([
      1,
    ]);
    expect(guard.state().entries).to.equal(0);
  });
});
