/** An HTTP port on which strangers hold connections open. */

import diagnostics from 'node:diagnostics_channel';
import { once } from 'node:events';
import { request } from 'node:http';
import { connect, type Socket } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import { Worker } from 'node:worker_threads';
import { expect } from 'chai';
import {
  type HttpPort,
  type HttpPortOptions,
  jsonAnswer,
  openHttpListener,
  openHttpPort,
} from '../../../../services/common/host/http-port.js';
import { createLog } from '../../../../services/common/host/log.js';
import { MovableClock } from '../../../support/clock.js';
import { type RunningHost, runHost } from './running-host.js';

const PROBES = 20;
const CONNECTIONS_MAX = 64;
const LARGE = Buffer.alloc(16 * 1024 * 1024);

const log = createLog({ service: 'test', level: 'silent' });

describe('an HTTP port that strangers reach', function () {
  this.timeout(180_000);
  let opened: (() => Promise<void>)[] = [];
  const sockets = new Set<Socket>();

  afterEach(async () => {
    for (const socket of sockets) socket.destroy();
    sockets.clear();
    for (const close of opened.splice(0)) await close();
    opened = [];
  });

  async function openPort(options: Partial<HttpPortOptions> = {}): Promise<HttpPort> {
    const port = await openHttpPort({
      host: '127.0.0.1',
      port: 0,
      log,
      connectionsMax: CONNECTIONS_MAX,
      probes: new Set(['/livez']),
      routes: {
        '/livez': () => jsonAnswer(200, 'alive'),
        '/keys': () => jsonAnswer(200, 'keys'),
        '/large': () => ({ status: 200, contentType: 'text/plain', body: LARGE }),
      },
      ...options,
    });
    opened.push(() => port.close());
    return port;
  }
  async function connectTo(port: number, localAddress: string, text: string): Promise<Socket> {
    const socket = connect({ port, host: '127.0.0.1', localAddress });
    sockets.add(socket.on('error', () => {}));
    await once(socket, 'connect');
    socket.write(text);
    return socket;
  }
  function probe(port: number, path = '/livez', localAddress = '127.0.0.1'): Promise<number | undefined> {
    return new Promise((resolve, reject) => {
      const sent = request({ port, host: '127.0.0.1', path, localAddress, agent: false }, (response) => {
        response.resume().on('end', () => resolve(response.statusCode));
      });
      sent.on('error', reject).end();
    });
  }

  it('answers every probe while it is full of half-sent requests', async () => {
    const { port } = await openPort();
    for (let count = 0; count < 2 * CONNECTIONS_MAX; count += 1) {
      await connectTo(port, '127.0.0.1', 'GET /livez HTTP/1.1\r\nhost: x\r\nx-');
    }
    for (let count = 0; count < PROBES; count += 1) expect(await probe(port)).to.equal(200);
  });

  it('answers every probe while it is full of callers that do not read, and closes those', async () => {
    const { port } = await openPort({ transferTimeoutMs: 500 });
    const slow: Socket[] = [];
    for (let count = 0; count < CONNECTIONS_MAX; count += 1) {
      slow.push(await connectTo(port, '127.0.0.1', 'GET /large HTTP/1.1\r\nhost: x\r\n\r\n'));
    }
    for (let count = 0; count < PROBES; count += 1) expect(await probe(port)).to.equal(200);
    // Whatever the machine is busy with, the time of the last one has passed as well.
    await sleep(1_000);
    // Reading on shows the end of the connection long before the end of the response.
    const received = await Promise.all(
      slow.map(async (socket) => {
        if (!socket.closed) await once(socket.resume(), 'close');
        return socket.bytesRead;
      }),
    );
    for (const bytes of received) expect(bytes).to.be.below(LARGE.length);
  });

  it('closes the oldest connection of the address that has the most, and counts it', async () => {
    const port = await openPort();
    const scraper = await connectTo(port.port, '127.0.0.2', '');
    const strangers: Socket[] = [];
    for (let count = 0; count < CONNECTIONS_MAX - 1; count += 1) {
      strangers.push(await connectTo(port.port, '127.0.0.3', ''));
    }
    expect(port.evicted).to.equal(0);
    const [first] = strangers;
    const closed = first === undefined ? undefined : once(first, 'close');
    await connectTo(port.port, '127.0.0.3', '');
    await closed;
    expect(port.evicted).to.equal(1);
    expect(scraper.closed).to.equal(false);
    expect(strangers.filter((socket) => socket.closed)).to.have.length(1);
  });

  it('answers so many requests of one address in a second, with the time after which to retry', async () => {
    const clock = new MovableClock();
    const { port, refused } = await openPort({ requestsPerAddress: 3, clock });
    const statuses = async (path: string, count: number): Promise<(number | undefined)[]> =>
      await Promise.all(Array.from({ length: count }, () => probe(port, path)));
    expect((await statuses('/keys', 5)).sort()).to.deep.equal([200, 200, 200, 429, 429]);
    expect(refused.requests_per_address).to.equal(2);
    const response = await fetch(`http://127.0.0.1:${port}/keys`);
    expect(response.status).to.equal(429);
    expect(response.headers.get('retry-after')).to.equal('1');
    expect(await response.text()).to.include('PORTCULLIS_OPS_REQUESTS_PER_ADDRESS');
    // Probes are answered all the same, and so are other addresses.
    expect(new Set(await statuses('/livez', 20))).to.deep.equal(new Set([200]));
    expect(await probe(port, '/keys', '127.0.0.9')).to.equal(200);
    clock.pass(1_000);
    expect(await probe(port, '/keys')).to.equal(200);
  });

  it('names no setting when it refuses a request to a port for browsers', async () => {
    const at = { host: '127.0.0.1', port: 0 };
    const port = await openHttpListener({ ...at, log, requestsPerAddress: 0 }, () => {});
    opened.push(() => port.close());
    const response = await fetch(`http://127.0.0.1:${port.port}/`);
    expect(response.status).to.equal(429);
    expect(response.headers.get('content-type')).to.match(/^text\/plain/);
    expect(await response.text())
      .to.match(/^Too many requests/)
      .and.not.match(/PORTCULLIS|[{}]/);
  });

  it('ends a connection on which more than four requests wait for their answers', async () => {
    const { port, refused } = await openPort({ requestsPerAddress: 1_000 });
    const socket = await connectTo(port, '127.0.0.1', 'GET /large HTTP/1.1\r\nhost: x\r\n\r\n'.repeat(100));
    if (!socket.closed) await once(socket.resume(), 'close');
    expect(socket.bytesRead).to.be.below(4 * LARGE.length);
    expect(refused.pipelined).to.equal(1);
    expect(await probe(port)).to.equal(200);
  });

  it('parses no further request behind those that a connection may have waiting', async () => {
    const { port, refused } = await openPort({ requestsPerAddress: 1_000 });
    let parsed = 0;
    const count = (): void => {
      parsed += 1;
    };
    diagnostics.subscribe('http.server.request.start', count);
    try {
      // So many fit into one read of Node, which parses them in one go.
      const socket = await connectTo(
        port,
        '127.0.0.1',
        'GET /keys HTTP/1.1\r\nhost: x\r\n\r\n'.repeat(2_000),
      );
      if (!socket.closed) await once(socket.resume(), 'close');
    } finally {
      diagnostics.unsubscribe('http.server.request.start', count);
    }
    expect(parsed).to.equal(4);
    expect(refused.pipelined).to.equal(1);
  });

  it('answers a request that asks for another protocol like any other', async () => {
    const { port, refused } = await openPort();
    const socket = await connectTo(
      port,
      '127.0.0.1',
      'GET /keys HTTP/1.1\r\nhost: x\r\nconnection: upgrade, close\r\nupgrade: h2c\r\n\r\n',
    );
    const [answer] = (await once(socket, 'data')) as [Buffer];
    expect(answer.toString()).to.match(/^HTTP\/1\.1 200 /);
    expect(refused.pipelined).to.equal(0);
  });

  it('drops a request of a connection that was reset before it was accepted', async () => {
    const answered: string[] = [];
    const { port } = await openPort({
      routes: { '/keys': ({ path }) => jsonAnswer(200, answered.push(path)) },
    });
    const accepted: Socket[] = [];
    const onSocket = (message: unknown): void => {
      const { socket } = message as { readonly socket: Socket };
      accepted.push(socket.on('error', () => {}));
    };
    diagnostics.subscribe('net.server.socket', onSocket);
    try {
      // This thread accepts nothing until the other one has sent the request and reset the connection.
      await sendAndReset(port, 'GET /keys HTTP/1.1\r\nhost: x\r\n\r\n');
      while (accepted.length === 0) await sleep(1);
    } finally {
      diagnostics.unsubscribe('net.server.socket', onSocket);
    }
    for (const socket of accepted) if (!socket.closed) await once(socket, 'close');
    expect(answered).to.be.empty;
  });

  it('drops a request whose connection has lost its address', async () => {
    const answered: string[] = [];
    const { port } = await openPort({
      routes: { '/keys': ({ path }) => jsonAnswer(200, answered.push(path)) },
    });
    const loseAddress = (message: unknown): void => {
      const { socket } = message as { readonly socket: Socket };
      Object.defineProperty(socket, 'remoteAddress', { value: undefined });
    };
    diagnostics.subscribe('http.server.request.start', loseAddress);
    try {
      const socket = await connectTo(port, '127.0.0.1', 'GET /keys HTTP/1.1\r\nhost: x\r\n\r\n');
      await Promise.race([once(socket, 'data'), once(socket, 'close')]);
      expect(socket.bytesRead).to.equal(0);
    } finally {
      diagnostics.unsubscribe('http.server.request.start', loseAddress);
    }
    expect(answered).to.be.empty;
  });

  it('ends a request that does not arrive in time', async () => {
    const { port } = await openPort({ transferTimeoutMs: 300 });
    const socket = await connectTo(port, '127.0.0.1', 'GET /livez HTTP/1.1\r\nhost: x\r\nx-');
    const [answer] = (await once(socket, 'data')) as [Buffer];
    expect(answer.toString()).to.match(/^HTTP\/1\.1 408 /);
  });

  describe('that closes', () => {
    /** A port with a route that answers when the test says so, and a request under way to it. */
    async function openWithRequest(drainMs: number): Promise<{
      readonly port: HttpPort;
      readonly finish: () => void;
      readonly status: Promise<number | string | undefined>;
    }> {
      let finish = (): void => {};
      const finished = new Promise<void>((resolve) => {
        finish = resolve;
      });
      let arrived = (): void => {};
      const arrival = new Promise<void>((resolve) => {
        arrived = resolve;
      });
      const slow = async (): Promise<ReturnType<typeof jsonAnswer>> => {
        arrived();
        await finished;
        return jsonAnswer(200, 'done');
      };
      const port = await openPort({ routes: { '/slow': slow }, drainMs });
      const status = probe(port.port, '/slow').catch(({ code }: { readonly code: string }) => code);
      await arrival;
      return { port, finish, status };
    }

    it('answers a request under way, and no further one', async () => {
      const { port, finish, status } = await openWithRequest(10_000);
      const idle = await connectTo(port.port, '127.0.0.1', '');
      // An answer shows that the connection has been accepted.
      idle.write('GET /none HTTP/1.1\r\nhost: x\r\n\r\n');
      await once(idle, 'data');
      const begin = performance.now();
      const closed = port.close();
      idle.write('GET /slow HTTP/1.1\r\nhost: x\r\n\r\n');
      const received: Buffer[] = [];
      idle.on('data', (chunk) => received.push(chunk));
      if (!idle.closed) await once(idle, 'close');
      expect(received).to.be.empty;
      expect(await probe(port.port).catch(({ code }: { readonly code: string }) => code)).to.equal(
        'ECONNREFUSED',
      );
      finish();
      expect(await status).to.equal(200);
      await closed;
      expect(performance.now() - begin).to.be.below(10_000);
    });

    it('cuts a request that is not answered within the drain time', async () => {
      const { port, status } = await openWithRequest(100);
      await port.close();
      expect(await status).to.equal('ECONNRESET');
    });
  });

  describe('for operators', () => {
    let running: RunningHost;

    async function run(options: Parameters<typeof runHost>[0] = {}): Promise<void> {
      running = await runHost(options);
      opened.push(() => running.close());
    }

    it('renders the metrics for each of a few scrapes, and not for each of many', async () => {
      let renderings = 0;
      await run();
      const { registry } = running;
      const original = registry.metrics.bind(registry);
      registry.metrics = async () => {
        renderings += 1;
        return await original();
      };
      for (let count = 0; count < 3; count += 1) await running.ops('/metrics');
      expect(renderings).to.equal(3);
      const begin = performance.now();
      await Promise.all(Array.from({ length: 200 }, () => running.ops('/metrics').then((one) => one.text())));
      const seconds = (performance.now() - begin) / 1_000;
      expect(renderings).to.be.at.most(3 + 10 + Math.ceil(10 * seconds));
    });

    it('serves the routes on a port of their own as well, without probes and metrics', async () => {
      const variable = 'PORTCULLIS_KEYS_LISTEN';
      await run({
        routes: { '/keys': () => jsonAnswer(200, 'keys') },
        routesListen: { address: '127.0.0.1:0', variable },
      });
      const line = running.lines.map((one) => JSON.parse(one)).find(({ msg }) => msg === 'listening');
      const at = (path: string): Promise<Response> => fetch(`http://${line.routesAddress}${path}`);
      expect(await (await at('/keys')).json()).to.equal('keys');
      for (const path of ['/livez', '/readyz', '/metrics']) expect((await at(path)).status).to.equal(404);
      expect((await running.ops('/keys')).status).to.equal(200);
    });
  });
});

/** Sends a text from another thread, and resets the connection. Blocks this thread until that is done. */
async function sendAndReset(port: number, text: string): Promise<void> {
  const done = new Int32Array(new SharedArrayBuffer(4));
  const worker = new Worker(RESETTING_CLIENT, { eval: true, execArgv: [], workerData: { port, text, done } });
  expect(Atomics.wait(done, 0, 0, 10_000)).to.equal('ok');
  await worker.terminate();
}

const RESETTING_CLIENT = `
  const { connect } = require('node:net');
  const { workerData: { port, text, done } } = require('node:worker_threads');
  const socket = connect({ host: '127.0.0.1', port }, () => socket.write(text, () => socket.resetAndDestroy()));
  socket.once('close', () => {
    Atomics.store(done, 0, 1);
    Atomics.notify(done, 0);
  });
`;
