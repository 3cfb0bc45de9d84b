/** Pins what the library relies on in grpc-js without its documentation saying so: a version that differs fails here. */

import { once } from 'node:events';
import { type ClientHttp2Session, connect, constants, type Settings } from 'node:http2';
import {
  Client,
  credentials,
  Metadata,
  Server,
  ServerCredentials,
  ServerInterceptingCall,
  type ServerInterceptingCallInterface,
  type ServerInterceptor,
  type ServerUnaryCall,
  type StatusObject,
  status,
  type UntypedHandleCall,
} from '@grpc/grpc-js';
import { expect } from 'chai';
import {
  asServerInterceptingCall,
  closeStreamLater,
  createMetadataSlot,
  decodeRequestWith,
  inspectHeadersOf,
  isSecure,
  mapStatusesOf,
  observeConnectionsOf,
  requestDeadlineUnder,
  resetStream,
  type ServerCallListener,
  type ServerCallStatus,
  sessionUnder,
  setHttp2SettingsOf,
  setRequestDeadline,
  withComputedHeaders,
} from '../../../interceptors/src/wire/grpc-js-internals.js';

type Unary = (
  call: ServerUnaryCall<Buffer, Buffer>,
  answer: (error: unknown, value?: Buffer) => void,
) => void;

const PATH = '/test.v1.Pinned/Unary';
const identity = (bytes: Buffer): Buffer => bytes;

describe('grpc-js', () => {
  let server: Server;
  let port: number;
  let client: Client;

  /** @param prepare - runs before the server listens */
  async function serve(
    handle: Unary,
    interceptors: readonly ServerInterceptor[] = [],
    prepare: (server: Server) => void = () => {},
  ): Promise<void> {
    server = new Server({ interceptors: [...interceptors] });
    prepare(server);
    const definition = {
      path: PATH,
      requestStream: false,
      responseStream: false,
      requestSerialize: identity,
      requestDeserialize: identity,
      responseSerialize: identity,
      responseDeserialize: identity,
    };
    server.addService({ unary: definition }, { unary: handle as UntypedHandleCall });
    await listen();
  }

  async function listen(): Promise<void> {
    port = await new Promise<number>((resolve, reject) => {
      server.bindAsync('127.0.0.1:0', ServerCredentials.createInsecure(), (error, bound) =>
        error === null ? resolve(bound) : reject(error),
      );
    });
    client = new Client(`127.0.0.1:${port}`, credentials.createInsecure());
  }

  afterEach(() => {
    client?.close();
    session?.destroy();
    server?.forceShutdown();
  });

  let session: ClientHttp2Session | undefined;

  /** A connection without grpc-js at the client's end. */
  function connectRaw(): ClientHttp2Session {
    session = connect(`http://127.0.0.1:${port}`);
    session.on('error', () => {});
    return session;
  }

  /** An interceptor that does something with the innermost call before its request arrives. */
  const atStart =
    (act: (inner: ServerInterceptingCallInterface) => void): ServerInterceptor =>
    (_method, inner) =>
      new ServerInterceptingCall(inner, {
        start: (next) => {
          act(inner);
          next();
        },
      });

  function call(metadata = new Metadata()): Promise<StatusObject> {
    return new Promise((resolve) => {
      const deadline = Date.now() + 5000;
      client
        .makeUnaryRequest(PATH, identity, identity, Buffer.from('x'), metadata, { deadline }, () => {})
        .on('status', resolve);
    });
  }

  const answerAll: Unary = (_call, answer) => answer(null, Buffer.from('y'));

  it('distinguishes TLS credentials from plaintext ones by `_isSecure`', () => {
    expect(isSecure(credentials.createInsecure())).to.equal(false);
    expect(isSecure(credentials.createSsl())).to.equal(true);
  });

  it('keeps the stream of a call in `stream`, below any number of layers linked by `nextCall`', async () => {
    const sessions: unknown[] = [];
    const addresses: (string | undefined)[] = [];
    const look: ServerInterceptor = (_method, inner) => {
      const session = sessionUnder(inner);
      sessions.push(session);
      addresses.push(session?.socket?.remoteAddress);
      return new ServerInterceptingCall(inner);
    };
    await serve(answerAll, [look, look, look]);
    expect((await call()).code).to.equal(status.OK);
    expect(addresses).to.deep.equal(['127.0.0.1', '127.0.0.1', '127.0.0.1']);
    expect(new Set(sessions)).to.have.length(1);
  });

  it('ends a call whose stream is reset', async () => {
    const reset: ServerInterceptor = (_method, inner) =>
      new ServerInterceptingCall(inner, {
        start: (next) => {
          next();
          resetStream(inner, constants.NGHTTP2_CANCEL);
        },
      });
    await serve(answerAll, [(_method, inner) => new ServerInterceptingCall(inner), reset]);
    expect((await call()).code).to.equal(status.CANCELLED);
  });

  it('reads messages with the decoder in the field `decoder` of the innermost call', async () => {
    const received: string[] = [];
    const replaced = Buffer.concat([Buffer.from([0, 0, 0, 0, 3]), Buffer.from('new')]);
    const isFound: boolean[] = [];
    await serve(
      (request, answer) => {
        received.push(request.request.toString());
        answer(null, Buffer.from('y'));
      },
      [atStart((inner) => isFound.push(decodeRequestWith(inner, { write: () => [replaced] }, 100)))],
    );
    expect((await call()).code).to.equal(status.OK);
    expect(isFound).to.deep.equal([true]);
    expect(received).to.deep.equal(['new']);
  });

  it('limits a decompressed message by the field `maxReceiveMessageSize`, and ends the call by `sendStatus`', async () => {
    const messages = { write: (data: Buffer) => [Buffer.from(data)] };
    const limit = atStart((inner) => {
      decodeRequestWith(inner, messages, 100);
      mapStatusesOf(inner, (end) => ({ ...end, details: `mapped ${end.details}` }));
    });
    await serve(answerAll, [limit]);
    client.close();
    client = new Client(`127.0.0.1:${port}`, credentials.createInsecure(), {
      'grpc.default_compression_algorithm': 2,
    });
    const end = await new Promise<StatusObject>((resolve) => {
      const large = Buffer.alloc(10_000);
      client.makeUnaryRequest(PATH, identity, identity, large, () => {}).on('status', resolve);
    });
    expect(end.code).to.equal(status.RESOURCE_EXHAUSTED);
    expect(end.details).to.match(/^mapped /);
  });

  it('leaves the stream of an ended call open while the request has not ended, until it is closed', async () => {
    let closes = false;
    const refuse: ServerInterceptor = (_method, inner) =>
      new ServerInterceptingCall(inner, {
        start: (next) => {
          next();
          inner.sendStatus({ code: status.NOT_FOUND, details: '' });
          if (closes) closeStreamLater(inner, 1);
        },
      });
    await serve(answerAll, [refuse]);
    const raw = connectRaw();
    const headers = { ':method': 'POST', ':path': PATH, 'content-type': 'application/grpc', te: 'trailers' };
    const left = raw.request(headers);
    await once(left.resume(), 'end');
    closes = true;
    const closed = raw.request(headers);
    await once(closed.resume(), 'close');
    expect([left.closed, closed.rstCode]).to.deep.equal([false, constants.NGHTTP2_NO_ERROR]);
  });

  it('tolerates listeners for the connections, sessions and streams of its HTTP/2 servers', async () => {
    const seen: string[] = [];
    let accepts = true;
    await serve(answerAll, [], (prepared) =>
      observeConnectionsOf(prepared, {
        accepted: (socket) => {
          seen.push(`accepted ${socket.remoteAddress}`);
          if (!accepts) socket.destroy();
        },
        established: ({ socket }) => seen.push(`established ${socket?.remoteAddress}`),
        requested: ({ socket }) => seen.push(`requested ${socket?.remoteAddress}`),
      }),
    );
    expect((await call()).code).to.equal(status.OK);
    expect(seen).to.deep.equal(['accepted 127.0.0.1', 'established 127.0.0.1', 'requested 127.0.0.1']);
    accepts = false;
    await once(connectRaw(), 'close');
    expect(seen.slice(3)).to.deep.equal(['accepted 127.0.0.1']);
    expect((await call()).code).to.equal(status.OK);
  });

  it('announces the HTTP/2 settings in the field `commonServerOptions` of a server', async () => {
    await serve(answerAll, [], (prepared) =>
      setHttp2SettingsOf(prepared, { maxConcurrentStreams: 7, maxHeaderListSize: 5000 }),
    );
    const [settings] = (await once(connectRaw(), 'remoteSettings')) as [Settings];
    expect(settings).to.include({ maxConcurrentStreams: 7, maxHeaderListSize: 5000 });
    const moved = new Server();
    Reflect.set(moved, 'commonServerOptions', undefined);
    const limits = { maxConcurrentStreams: 7, maxHeaderListSize: 5000 };
    expect(() => setHttp2SettingsOf(moved, limits)).to.throw(TypeError, 'Server.commonServerOptions');
  });

  it('passes the stream that a listener of its HTTP/2 server saw to the call, and reads no deleted header', async () => {
    const deadlines: unknown[] = [];
    const look: ServerInterceptor = (_method, inner) => {
      deadlines.push(requestDeadlineUnder(inner), inner.getDeadline());
      return new ServerInterceptingCall(inner);
    };
    await serve(answerAll, [look], (prepared) =>
      inspectHeadersOf(prepared, (headers, _rawHeaders, stream) => {
        delete headers['grpc-timeout'];
        setRequestDeadline(stream, 1234);
      }),
    );
    expect((await call()).code).to.equal(status.OK);
    expect(deadlines).to.deep.equal([1234, Number.POSITIVE_INFINITY]);
  });

  it('accepts a plain object with the methods of a server call from an interceptor', async () => {
    await serve(answerAll, [(_method, inner) => asServerInterceptingCall(new PassingCall(inner))]);
    expect((await call()).code).to.equal(status.OK);
  });

  it('keeps its HTTP/2 servers in the map `http2Servers`, and reads headers after a listener that was prepended', async () => {
    const seen: unknown[] = [];
    server = new Server();
    inspectHeadersOf(server, (headers, rawHeaders) => {
      seen.push(rawHeaders.filter((_text, index) => rawHeaders[index - 1] === 'x-twice'));
      headers['x-once'] = 'changed';
    });
    const received: unknown[] = [];
    server.addService(
      {
        unary: {
          path: PATH,
          requestStream: false,
          responseStream: false,
          requestSerialize: identity,
          requestDeserialize: identity,
          responseSerialize: identity,
          responseDeserialize: identity,
        },
      },
      {
        unary: ((request, answer) => {
          received.push(request.metadata.get('x-once'));
          answer(null, Buffer.from('y'));
        }) as Unary as UntypedHandleCall,
      },
    );
    await listen();
    const metadata = new Metadata();
    metadata.add('x-twice', 'one');
    metadata.add('x-twice', 'two');
    metadata.set('x-once', 'sent');
    expect((await call(metadata)).code).to.equal(status.OK);
    expect(seen).to.deep.equal([['one', 'two']]);
    expect(received).to.deep.equal([['changed']]);
  });

  it('is rejected when it keeps its HTTP/2 servers elsewhere', () => {
    const moved = new Server();
    Reflect.set(moved, 'http2Servers', undefined);
    expect(() => inspectHeadersOf(moved, () => {})).to.throw(TypeError, 'Server.http2Servers');
  });

  it('passes the handler the same metadata object that the interceptor passed on', async () => {
    const slot = createMetadataSlot<{ name: string }>('pinned');
    const read: unknown[] = [];
    const attach: ServerInterceptor = (_method, inner) =>
      new ServerInterceptingCall(inner, {
        start: (next) =>
          next({
            onReceiveMetadata: (metadata, pass) => {
              slot.set(metadata, { name: 'attached' });
              pass(metadata);
            },
          }),
      });
    await serve(
      (request, answer) => {
        read.push(slot.get(request.metadata), slot.get(request.metadata.clone()));
        read.push(Object.keys(request.metadata.toHttp2Headers()).filter((key) => key.includes('pinned')));
        answer(null, Buffer.from('y'));
      },
      [attach],
    );
    expect((await call()).code).to.equal(status.OK);
    expect(read).to.deep.equal([{ name: 'attached' }, undefined, []]);
  });

  it('sends a clone of the metadata of a status, and as headers what `toHttp2Headers` returns', async () => {
    const trailers = new Metadata();
    trailers.set('x-trailer', 'sent');
    const reusable = withComputedHeaders(trailers);
    const compute = trailers.toHttp2Headers;
    let computed = 0;
    Metadata.prototype.toHttp2Headers = function (this: Metadata) {
      if (this.get('x-trailer').length > 0) computed += 1;
      return compute.call(this);
    };
    try {
      const ended = { code: status.NOT_FOUND, details: 'no', metadata: reusable };
      await serve((_call, answer) => answer(ended));
      for (let round = 0; round < 2; round += 1) {
        const { code, metadata } = await call();
        expect(code).to.equal(status.NOT_FOUND);
        expect(metadata.get('x-trailer')).to.deep.equal(['sent']);
      }
    } finally {
      Metadata.prototype.toHttp2Headers = compute;
    }
    expect(computed).to.equal(0);
    expect(reusable.get('x-trailer')).to.deep.equal(['sent']);
  });
});

/** The methods of a server call, without grpc-js's own class. */
class PassingCall implements ServerInterceptingCallInterface {
  readonly #inner: ServerInterceptingCallInterface;

  constructor(inner: ServerInterceptingCallInterface) {
    this.#inner = inner;
  }

  start(listener: ServerCallListener): void {
    this.#inner.start(listener);
  }

  sendMetadata(metadata: Metadata): void {
    this.#inner.sendMetadata(metadata);
  }

  sendMessage(message: unknown, callback: () => void): void {
    this.#inner.sendMessage(message, callback);
  }

  sendStatus(end: ServerCallStatus): void {
    this.#inner.sendStatus(end);
  }

  startRead(): void {
    this.#inner.startRead();
  }

  getPeer(): string {
    return this.#inner.getPeer();
  }

  getDeadline(): ReturnType<ServerInterceptingCallInterface['getDeadline']> {
    return this.#inner.getDeadline();
  }

  getHost(): string {
    return this.#inner.getHost();
  }

  getAuthContext(): ReturnType<ServerInterceptingCallInterface['getAuthContext']> {
    return this.#inner.getAuthContext();
  }

  getConnectionInfo(): ReturnType<ServerInterceptingCallInterface['getConnectionInfo']> {
    return this.#inner.getConnectionInfo();
  }

  getMetricsRecorder(): ReturnType<ServerInterceptingCallInterface['getMetricsRecorder']> {
    return this.#inner.getMetricsRecorder();
  }
}
