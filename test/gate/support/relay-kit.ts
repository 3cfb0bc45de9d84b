/** A relay between real programs, with a judge that a test commands. */

import { once } from 'node:events';
import { type AddressInfo, connect, createServer, type Server as NetServer, type Socket } from 'node:net';
import {
  Client,
  type ClientDuplexStream,
  type ClientReadableStream,
  type ClientUnaryCall,
  credentials,
  Metadata,
  Server,
  ServerCredentials,
  type ServerDuplexStream,
  type ServerReadableStream,
  type ServerUnaryCall,
  type ServerWritableStream,
  type ServiceDefinition,
  type ServiceError,
  type sendUnaryData,
  status,
  type UntypedServiceImplementation,
} from '@grpc/grpc-js';
import { systemClock } from '@portcullis/guard';
import type { RequestHead } from '../../../gate/src/http2/request-head.js';
import type {
  CutHandler,
  ForeignResponse,
  Header,
  Judge,
  OwnMethod,
  RelayCall,
  RelayCaller,
  RelayStatus,
  Verdict,
} from '../../../gate/src/relay/judge.js';
import type { RelayLimits } from '../../../gate/src/relay/limits.js';
import { type Relay, startRelay } from '../../../gate/src/relay/relay.js';

const TOKEN = 'Bearer good';

/** A status as the guard sends it. */
function statusOf(code: number, reason: string, message: string): RelayStatus {
  const headers: Header[] = [
    ['grpc-status', String(code)],
    ['grpc-message', encodeURI(message)],
    ['x-reason', reason],
  ];
  return {
    headers,
    trailersOnly: [[':status', '200'], ['content-type', 'application/grpc+proto'], ...headers],
  };
}

const INVALID = statusOf(status.UNAUTHENTICATED, 'TOKEN_INVALID', 'the token is not valid');
const REVOKED = statusOf(status.UNAUTHENTICATED, 'TOKEN_REVOKED', 'the token is revoked');
const TOO_LARGE = statusOf(status.RESOURCE_EXHAUSTED, 'LIMIT', 'the request is too large');

/** What happened to one call at the judge. */
class JudgedCall implements RelayCall {
  readonly path: string;
  readonly method: RelayCall['method'];
  readonly #judge: TestJudge;
  handler: CutHandler | undefined;
  isUnlinked = false;
  isAnswered = false;
  isRequestEnded = false;
  /** What was reported of the room for its response. */
  readonly room: ('sending' | 'sent')[] = [];

  constructor(path: string, method: RelayCall['method'], judge: TestJudge) {
    this.path = path;
    this.method = method;
    this.#judge = judge;
  }

  denial(): RelayStatus | undefined {
    return this.#judge.isRevoked && !this.isAnswered ? REVOKED : undefined;
  }

  link(handler: CutHandler): void {
    this.handler = handler;
    this.#judge.live.add(this);
  }

  unlink(): void {
    this.isUnlinked = true;
    this.#judge.live.delete(this);
  }

  requestActive(): void {}

  requestEnded(): void {
    this.isRequestEnded = true;
  }

  answered(): void {
    this.isAnswered = true;
  }

  sending(): void {
    if (this.room.at(-1) !== 'sending') this.room.push('sending');
  }

  sent(): void {
    this.room.push('sent');
  }

  exceeded(): RelayStatus {
    return TOO_LARGE;
  }
}

/** Admits calls with {@link TOKEN}; paths that begin with `/public` need none. */
export class TestJudge implements Judge<JudgedCall> {
  readonly live = new Set<JudgedCall>();
  readonly judged: { readonly path: string; readonly authorizations: readonly string[] }[] = [];
  /** Every path and token that was admitted. */
  admitted = 0;
  isRevoked = false;
  requestBytesMax = 4 * 1024 * 1024;
  identity: readonly Header[] | undefined;
  foreign: ForeignResponse | undefined;
  /** Answers the calls of methods whose path begins with `/own`. */
  own: OwnMethod | undefined;
  caller: RelayCaller | undefined;
  /** Decisions wait for this, as they do for a signature. */
  waiting: Promise<void> | undefined;

  judge(
    path: string,
    authorizations: readonly string[],
    caller: RelayCaller,
  ): Verdict<JudgedCall> | Promise<Verdict<JudgedCall>> {
    this.caller = caller;
    this.judged.push({ path, authorizations });
    const { waiting } = this;
    return waiting === undefined
      ? this.#decide(path, authorizations)
      : waiting.then(() => this.#decide(path, authorizations));
  }

  #decide(path: string, authorizations: readonly string[]): Verdict<JudgedCall> {
    const isPublic = path.startsWith('/public');
    const isGood = authorizations.length === 1 && authorizations[0] === TOKEN;
    if (!isPublic && !isGood) return { kind: 'refused', status: INVALID };
    if (!isPublic && this.isRevoked) return { kind: 'refused', status: REVOKED };
    this.admitted += 1;
    const kind = path.endsWith('Unary') ? { requestStream: false, responseStream: false } : undefined;
    const call = new JudgedCall(path, kind, this);
    const own = path.startsWith('/own') ? this.own : undefined;
    return { kind: isPublic ? 'public' : 'admitted', call, requestBytesMax: this.requestBytesMax, own };
  }

  identityHeaders(): readonly Header[] | undefined {
    return this.identity;
  }

  foreignResponse(_head: RequestHead, _status: RelayStatus): ForeignResponse | undefined {
    return this.foreign;
  }

  /** Revokes the token: refuses new calls, and cuts those in progress. */
  revoke(): void {
    this.isRevoked = true;
    for (const { handler } of [...this.live]) handler?.cut(REVOKED);
  }
}

const identity = (bytes: Buffer): Buffer => bytes;

function method(name: string, requestStream = false, responseStream = false) {
  return {
    path: `/test.Echo/${name}`,
    requestStream,
    responseStream,
    requestSerialize: identity,
    requestDeserialize: identity,
    responseSerialize: identity,
    responseDeserialize: identity,
  };
}

/** The service of the tests. */
const ECHO: ServiceDefinition = {
  Unary: method('Unary'),
  ClientStream: method('ClientStream', true),
  ServerStream: method('ServerStream', false, true),
  Bidi: method('Bidi', true, true),
};

/** What the server has received, and how it answers. */
function echoHandlers(received: Metadata[]): UntypedServiceImplementation {
  return {
    Unary: (call: ServerUnaryCall<Buffer, Buffer>, callback: sendUnaryData<Buffer>) => {
      received.push(call.metadata);
      const wanted = call.metadata.get('x-fail')[0];
      if (wanted !== undefined) {
        const trailers = new Metadata();
        trailers.set('x-detail-bin', Buffer.from([0, 1, 2, 255]));
        callback({ code: Number(wanted), details: 'failed: ü', metadata: trailers });
        return;
      }
      if (call.metadata.get('x-hang').length > 0) return;
      const trailers = new Metadata();
      trailers.set('x-trailer', 'yes');
      callback(null, call.request, trailers);
    },
    ClientStream: (call: ServerReadableStream<Buffer, Buffer>, callback: sendUnaryData<Buffer>) => {
      received.push(call.metadata);
      const chunks: Buffer[] = [];
      call.on('data', (chunk: Buffer) => chunks.push(chunk));
      call.on('end', () => callback(null, Buffer.concat(chunks)));
    },
    ServerStream: (call: ServerWritableStream<Buffer, Buffer>) => {
      received.push(call.metadata);
      const count = Number(call.metadata.get('x-count')[0] ?? 3);
      const write = (left: number): void => {
        if (left === 0) return void call.end();
        if (call.cancelled) return;
        call.write(call.request, () => write(left - 1));
      };
      write(count);
    },
    Bidi: (call: ServerDuplexStream<Buffer, Buffer>) => {
      received.push(call.metadata);
      call.on('data', (chunk: Buffer) => call.write(chunk));
      call.on('end', () => call.end());
    },
  };
}

/** A relay, its server and a client. */
export interface Relayed extends RunningRelay {
  readonly client: EchoClient;
  readonly server: Server;
  readonly received: Metadata[];
  readonly serverPort: number;
  stop(): Promise<void>;
}

interface RelayedOptions {
  readonly judge?: TestJudge;
  readonly limits?: Partial<RelayLimits>;
  readonly forwardsToken?: boolean;
  /** Connects to something else than the server. */
  readonly connectServer?: () => Socket;
  readonly serverPort?: number;
  /** An error of the relay itself is only counted. */
  readonly toleratesErrors?: boolean;
}

/** A relay without a server of its own. */
interface RunningRelay {
  readonly relay: Relay;
  readonly judge: TestJudge;
  readonly events: string[];
  readonly port: number;
  /** The relay's connections to the server. */
  readonly serverSockets: Socket[];
}

/** Starts a relay before what listens on a port. */
export async function relayTo(serverPort: number, options: RelayedOptions = {}): Promise<RunningRelay> {
  const { judge = new TestJudge(), limits = {}, forwardsToken = false, connectServer } = options;
  const listener: NetServer = createServer({ noDelay: true });
  const events: string[] = [];
  const serverSockets: Socket[] = [];
  const relay = startRelay({
    server: listener,
    connectServer: () => {
      const socket = connectServer?.() ?? connect(serverPort, '127.0.0.1');
      serverSockets.push(socket);
      return socket;
    },
    judge,
    callerOf: (socket: Socket) => ({
      peer: `${socket.remoteAddress}:${socket.remotePort}`,
      address: socket.remoteAddress ?? '',
      isPrivate: true,
      certificateThumbprint: undefined,
    }),
    clock: systemClock,
    forwardsToken,
    limits,
    observer: {
      event: (event, _peer, detail) => {
        events.push(event);
        if (event === 'internal_error' && options.toleratesErrors !== true) throw detail;
      },
    },
  });
  listener.listen(0, '127.0.0.1');
  await once(listener, 'listening');
  return { relay, judge, events, port: (listener.address() as AddressInfo).port, serverSockets };
}

/** Starts a server of grpc-js, a relay before it, and a client. */
export async function startRelayed(options: RelayedOptions = {}): Promise<Relayed> {
  const received: Metadata[] = [];
  const server = new Server();
  server.addService(ECHO, echoHandlers(received));
  const serverPort = await new Promise<number>((resolve, reject) => {
    server.bindAsync('127.0.0.1:0', ServerCredentials.createInsecure(), (error, port) =>
      error === null ? resolve(port) : reject(error),
    );
  });
  const running = await relayTo(serverPort, options);
  const client = new EchoClient(running.port);
  return {
    ...running,
    client,
    server,
    received,
    serverPort,
    stop: async () => {
      client.close();
      server.forceShutdown();
      await running.relay.close();
    },
  };
}

/** How a call ended. */
interface Outcome {
  readonly code: number;
  readonly details: string;
  readonly messages: readonly Buffer[];
  readonly trailers: Metadata;
  readonly headers: Metadata | undefined;
}

class EchoClient {
  readonly #client: Client;

  constructor(port: number, host = '127.0.0.1') {
    this.#client = new Client(`${host}:${port}`, credentials.createInsecure(), {
      'grpc.use_local_subchannel_pool': 1,
      'grpc.max_receive_message_length': -1,
      'grpc.max_send_message_length': -1,
    });
  }

  close(): void {
    this.#client.close();
  }

  unary(request: Buffer, metadata = withToken(), timeoutMs = 10_000): Promise<Outcome> {
    return new Promise((resolve) => {
      let headers: Metadata | undefined;
      let trailers = new Metadata();
      let answer: Buffer | undefined;
      let failure: ServiceError | null = null;
      const call: ClientUnaryCall = this.#client.makeUnaryRequest(
        '/test.Echo/Unary',
        identity,
        identity,
        request,
        metadata,
        { deadline: Date.now() + timeoutMs },
        (error, response) => {
          failure = error;
          answer = response;
        },
      );
      call.on('metadata', (received) => {
        headers = received;
      });
      call.on('status', (ended) => {
        trailers = ended.metadata;
        const messages = answer === undefined ? [] : [answer];
        setImmediate(() =>
          resolve({ code: failure?.code ?? ended.code, details: ended.details, messages, trailers, headers }),
        );
      });
    });
  }

  bidi(metadata = withToken(), path = '/test.Echo/Bidi'): ClientDuplexStream<Buffer, Buffer> {
    return this.#client.makeBidiStreamRequest(path, identity, identity, metadata);
  }

  serverStream(request: Buffer, metadata = withToken()): ClientReadableStream<Buffer> {
    return this.#client.makeServerStreamRequest(
      '/test.Echo/ServerStream',
      identity,
      identity,
      request,
      metadata,
    );
  }

  clientStream(chunks: readonly Buffer[], metadata = withToken()): Promise<Buffer> {
    return new Promise((resolve, reject) => {
      const call = this.#client.makeClientStreamRequest(
        '/test.Echo/ClientStream',
        identity,
        identity,
        metadata,
        (error, response) => (error === null ? resolve(response ?? Buffer.alloc(0)) : reject(error)),
      );
      for (const chunk of chunks) call.write(chunk);
      call.end();
    });
  }
}

/** Metadata with a token. */
export function withToken(token: string = TOKEN, more: Readonly<Record<string, string>> = {}): Metadata {
  const metadata = new Metadata();
  metadata.set('authorization', token);
  for (const [name, value] of Object.entries(more)) metadata.set(name, value);
  return metadata;
}

/** Waits for the end of a stream. @returns its messages and its status */
export function ended(
  call: ClientReadableStream<Buffer> | ClientDuplexStream<Buffer, Buffer>,
): Promise<Outcome> {
  return new Promise((resolve) => {
    const messages: Buffer[] = [];
    call.on('data', (message: Buffer) => messages.push(message));
    call.on('error', () => {});
    call.on('status', (end) =>
      resolve({ code: end.code, details: end.details, messages, trailers: end.metadata, headers: undefined }),
    );
  });
}
