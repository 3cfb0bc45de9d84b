/** A host on free ports for tests, with one small service of all four kinds of call. */

import { type ChannelOptions, Client, credentials, type ServiceDefinition } from '@grpc/grpc-js';
import { bidi, clientStream, serverStream, unary } from '@portcullis/guard';
import { Registry } from 'prom-client';
import { type Host, type HostOptions, startHost } from '../../../../services/common/host/host.js';
import { createLog, type Log } from '../../../../services/common/host/log.js';

/** A message of the service: any text. */
const text = {
  requestSerialize: (value: string) => Buffer.from(value),
  requestDeserialize: (bytes: Buffer) => bytes.toString(),
  responseSerialize: (value: string) => Buffer.from(value),
  responseDeserialize: (bytes: Buffer) => bytes.toString(),
};

/** `test.v1.EchoService`: returns what it receives, once or repeatedly, at once or later. */
export const EchoService = {
  echo: { path: '/test.v1.EchoService/Echo', requestStream: false, responseStream: false, ...text },
  repeat: { path: '/test.v1.EchoService/Repeat', requestStream: false, responseStream: true, ...text },
  join: { path: '/test.v1.EchoService/Join', requestStream: true, responseStream: false, ...text },
  chat: { path: '/test.v1.EchoService/Chat', requestStream: true, responseStream: true, ...text },
} satisfies ServiceDefinition;

/** Full name of {@link EchoService}. */
export const ECHO_SERVICE = 'test.v1.EchoService';

/** The behaviour of the handlers, which tests replace. */
interface Echo {
  /** Answers Echo; returns the request unless replaced. */
  handle(request: string): Promise<string>;
}

/** A host under test, with clients for it. */
export interface RunningHost {
  readonly host: Host;
  readonly registry: Registry;
  readonly echo: Echo;
  /** The lines of its log. */
  readonly lines: string[];
  /** A client for any service, closed by {@link RunningHost.close}. */
  connect(options?: ChannelOptions): Client;
  /** A client of a generated class. */
  connectAs<C extends Client>(kind: new (address: string, creds: typeof insecure) => C): C;
  /** Fetches from the ops port. */
  ops(path: string, init?: RequestInit): Promise<Response>;
  close(): Promise<void>;
}

const insecure = credentials.createInsecure();

/** Starts a host; options that are not given have defaults for tests. */
export async function runHost(options: Partial<HostOptions> = {}): Promise<RunningHost> {
  const lines: string[] = [];
  const log: Log = createLog({ service: 'test', level: 'debug' }, { write: (line) => void lines.push(line) });
  const registry = options.registry ?? new Registry();
  const echo: Echo = { handle: async (request) => request };
  const host = await startHost({
    service: 'test',
    listen: '127.0.0.1:0',
    opsListen: '127.0.0.1:0',
    log,
    reflection: true,
    drainMs: 200,
    connectionIdleMs: 300_000,
    interceptors: [],
    addServices: (server) => server.addService(EchoService, echoHandlers(echo)),
    serviceNames: [ECHO_SERVICE],
    readiness: {},
    ...options,
    registry,
  });
  const clients: Client[] = [];
  return {
    host,
    registry,
    echo,
    lines,
    connect: (channelOptions) => {
      const client = new Client(host.address, insecure, channelOptions);
      clients.push(client);
      return client;
    },
    connectAs: (Kind) => {
      const client = new Kind(host.address, insecure);
      clients.push(client);
      return client;
    },
    ops: (path, init) => fetch(`http://${host.opsAddress}${path}`, init),
    close: async () => {
      for (const client of clients) client.close();
      await host.stop();
    },
  };
}

function echoHandlers(echo: Echo) {
  return {
    echo: unary<string, string>((request) => echo.handle(request)),
    repeat: serverStream<string, string>(async function* (request) {
      for (let count = 0; count < 3; count++) yield request;
      await echo.handle(request);
    }),
    join: clientStream<string, string>(async (requests) => {
      const all: string[] = [];
      for await (const request of requests) all.push(request);
      return all.join('+');
    }),
    chat: bidi<string, string>(async function* (requests) {
      for await (const request of requests) yield request;
    }),
  };
}
