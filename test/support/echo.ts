/** A guarded server over real sockets, with one method of each kind and several access rules. */

import {
  type CallOptions,
  type ChannelCredentials,
  Client,
  type ClientReadableStream,
  credentials,
  Metadata,
  Server,
  ServerCredentials,
  type ServiceDefinition,
  type UntypedServiceImplementation,
} from '@grpc/grpc-js';
import {
  bidi,
  clientStream,
  createGuard,
  type Guard,
  type GuardOptions,
  native,
  serverStream,
  signalOf,
  unary,
} from '@portcullis/guard';
import { Caller, OnStale, type Rule } from '../../proto/gen/portcullis/access/v1/access.js';
import { AUDIENCE, ISSUER, type TestIssuer } from './issuer.js';

/** Bytes as they are: the serialization of calls that need no generated code. */
export const identity = (bytes: Buffer): Buffer => bytes;

export const HELLO = Buffer.from('hello');

const CALL_TIMEOUT_MS = 10_000;
const STREAM_TIMEOUT_MS = 30_000;

function method(name: string, requestStream = false, responseStream = false) {
  return {
    path: `/test.v1.EchoService/${name}`,
    requestStream,
    responseStream,
    requestSerialize: identity,
    requestDeserialize: identity,
    responseSerialize: identity,
    responseDeserialize: identity,
  };
}

/** The service: every method returns its request. */
export const ECHO: ServiceDefinition = {
  Unary: method('Unary'),
  ClientStream: method('ClientStream', true),
  ServerStream: method('ServerStream', false, true),
  Bidi: method('Bidi', true, true),
  Public: method('Public'),
  Stale: method('Stale'),
  StaleStream: method('StaleStream', false, true),
  Services: method('Services'),
  Users: method('Users'),
  Operators: method('Operators'),
  TwoScopes: method('TwoScopes'),
  Fresh: method('Fresh'),
};

const NO_RULE: Rule = {
  public: false,
  scopes: [],
  roles: [],
  caller: Caller.CALLER_UNSPECIFIED,
  maxAuthAge: undefined,
  onStale: OnStale.ON_STALE_UNSPECIFIED,
  maxRequestBytes: 0,
};

const CALL: Rule = { ...NO_RULE, scopes: ['echo.call'] };

export const ECHO_RULES: Readonly<Record<string, Rule>> = {
  Unary: CALL,
  ClientStream: CALL,
  ServerStream: CALL,
  Bidi: CALL,
  Public: { ...NO_RULE, public: true },
  Stale: { ...CALL, onStale: OnStale.ON_STALE_ALLOW },
  StaleStream: { ...CALL, onStale: OnStale.ON_STALE_ALLOW },
  Services: { ...NO_RULE, caller: Caller.CALLER_SERVICE },
  Users: { ...NO_RULE, caller: Caller.CALLER_USER },
  Operators: { ...NO_RULE, roles: ['operator', 'admin'] },
  TwoScopes: { ...NO_RULE, scopes: ['echo.call', 'echo.more'] },
  Fresh: { ...NO_RULE, maxAuthAge: { seconds: 60n, nanos: 0 } },
};

/** The rules in the form of the generated code. */
export function echoSchema(rules: Readonly<Record<string, Rule | undefined>> = ECHO_RULES) {
  const methods: Record<string, { rule: Rule }> = {};
  for (const [name, rule] of Object.entries(rules)) if (rule !== undefined) methods[name] = { rule };
  return { options: { services: { EchoService: { methods } } } };
}

/** The calls that reached handlers; a rejected call must not appear here. */
export class Trace {
  started = 0;
  messages = 0;
  ended = 0;
  /** The deadline of the last unary call, as its handler sees it. */
  deadline: number | Date = Number.NaN;
}

/** Resolves when the signal is aborted. */
function aborted(signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    if (signal.aborted) resolve();
    signal.addEventListener('abort', () => resolve(), { once: true });
  });
}

export function echoHandlers(trace: Trace): UntypedServiceImplementation {
  const once = unary<Buffer, Buffer>((request, call) => {
    trace.started += 1;
    trace.deadline = call.getDeadline();
    return request;
  });
  const streamed = serverStream<Buffer, Buffer>(async function* (request, call) {
    trace.started += 1;
    const signal = signalOf(call);
    try {
      yield request;
      await aborted(signal);
    } finally {
      trace.ended += 1;
    }
  });
  return {
    Unary: once,
    Public: once,
    Stale: once,
    Services: once,
    Users: once,
    Operators: once,
    TwoScopes: once,
    Fresh: once,
    StaleStream: streamed,
    ServerStream: streamed,
    ClientStream: clientStream<Buffer, Buffer>(async (requests) => {
      trace.started += 1;
      const parts: Buffer[] = [];
      for await (const request of requests) {
        trace.messages += 1;
        parts.push(request);
      }
      trace.ended += 1;
      return Buffer.concat(parts);
    }),
    Bidi: bidi<Buffer, Buffer>(async function* (requests) {
      trace.started += 1;
      for await (const request of requests) {
        trace.messages += 1;
        yield request;
      }
      trace.ended += 1;
    }),
  };
}

/** A guarded echo server and a client of it. */
export interface Echo {
  readonly guard: Guard;
  readonly client: Client;
  readonly port: number;
  readonly trace: Trace;
  stop(): Promise<void>;
}

/** Options of an echo server and its client. */
export interface EchoListener {
  /** The address to bind: `unix:` and a path, or a host, which gets a free port. */
  readonly bind: string;
  readonly server: ServerCredentials;
  readonly client: ChannelCredentials;
}

const PLAIN_ON_LOOPBACK: EchoListener = {
  bind: '127.0.0.1:0',
  server: ServerCredentials.createInsecure(),
  client: credentials.createInsecure(),
};

export async function startEcho(
  issuer: TestIssuer,
  options: Partial<GuardOptions> = {},
  listener: EchoListener = PLAIN_ON_LOOPBACK,
  rules: typeof ECHO_RULES = ECHO_RULES,
): Promise<Echo> {
  const guard = await createGuard({
    log: 'silent',
    issuer: ISSUER,
    audience: AUDIENCE,
    auth: { source: issuer.source },
    ...options,
  });
  const server = new Server({ interceptors: [guard.interceptor] });
  const trace = new Trace();
  guard.addService(server, ECHO, echoSchema(rules), native(echoHandlers(trace)));
  const port = await new Promise<number>((resolve, reject) => {
    server.bindAsync(listener.bind, listener.server, (error, bound) =>
      error === null ? resolve(bound) : reject(error),
    );
  });
  const address = listener.bind.replace(/:0$/, `:${port}`);
  const client = new Client(address, listener.client);
  return {
    guard,
    client,
    port,
    trace,
    stop: async () => {
      client.close();
      server.forceShutdown();
      await guard.close();
    },
  };
}

/** One call of a method of the echo service. */
export interface EchoCallOptions extends CallOptions {
  /** Default `Unary` or `ServerStream`. */
  readonly method?: string;
  readonly request?: Buffer;
}

/** Calls a unary method of an echo server. */
export function callEcho(
  client: Client,
  metadata: Metadata = new Metadata(),
  { method: name = 'Unary', request = HELLO, ...options }: EchoCallOptions = {},
): Promise<Buffer> {
  const bounded = { deadline: Date.now() + CALL_TIMEOUT_MS, ...options };
  return new Promise((resolve, reject) => {
    const path = `/test.v1.EchoService/${name}`;
    client.makeUnaryRequest(path, identity, identity, request, metadata, bounded, (error, response) => {
      if (error === null) resolve(response ?? Buffer.alloc(0));
      else reject(error);
    });
  });
}

/** Calls a method of an echo server that streams its answers. */
export function openEchoStream(
  client: Client,
  metadata: Metadata = new Metadata(),
  { method: name = 'ServerStream', request = HELLO, ...options }: EchoCallOptions = {},
): ClientReadableStream<Buffer> {
  const bounded = { deadline: Date.now() + STREAM_TIMEOUT_MS, ...options };
  const path = `/test.v1.EchoService/${name}`;
  return client.makeServerStreamRequest(path, identity, identity, request, metadata, bounded);
}

/** Metadata with a token. */
export function bearer(token: string): Metadata {
  const metadata = new Metadata();
  metadata.set('authorization', `Bearer ${token}`);
  return metadata;
}
