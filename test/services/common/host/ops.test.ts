/** The HTTP port for operators. */

import { connect } from 'node:net';
import { expect } from 'chai';
import { HTTP_HEADER_BYTES_MAX, jsonAnswer } from '../../../../services/common/host/http-port.js';
import { type RunningHost, runHost } from './running-host.js';

describe('ops port', () => {
  let running: RunningHost;
  let missing: string;

  beforeEach(async () => {
    missing = '';
    running = await runHost({
      readiness: { database: () => missing, broker: () => '' },
      routes: {
        '/keys': ({ query }) => jsonAnswer(200, { n: query.get('n') }, { 'cache-control': 'max-age=60' }),
        '/broken': () => Promise.reject(new Error('hunter2')),
        '/readyz': () => jsonAnswer(200, 'always'),
      },
    });
  });
  afterEach(() => running.close());

  it('reports that the process is alive', async () => {
    const response = await running.ops('/livez');
    expect(response.status).to.equal(200);
    expect(response.headers.get('cache-control')).to.equal('no-store');
  });

  it('reports whether the process is ready, and by name what is missing; no route can replace that', async () => {
    const ready = await running.ops('/readyz');
    expect([ready.status, await ready.json()]).to.deep.equal([200, { status: 'ready' }]);
    missing = 'the database does not answer';
    const notReady = await running.ops('/readyz');
    const body = { status: 'not ready', missing: { database: 'the database does not answer' } };
    expect([notReady.status, await notReady.json()]).to.deep.equal([503, body]);
    expect((await running.ops('/livez')).status).to.equal(200);
  });

  it('answers probes however many requests their address has sent', async () => {
    const many = await runHost({ opsRequestsPerAddress: 1 });
    try {
      const statuses = new Set<number>();
      for (let count = 0; count < 3; count += 1) statuses.add((await many.ops('/metrics')).status);
      expect([...statuses]).to.include(429);
      for (const probe of ['/livez', '/readyz', '/livez', '/readyz']) {
        expect((await many.ops(probe)).status, probe).to.equal(200);
      }
    } finally {
      await many.close();
    }
  });

  it('counts what each HTTP port has refused, also one that is added later', async () => {
    const many = await runHost({ opsRequestsPerAddress: 1 });
    try {
      const port = {
        port: 1,
        evicted: 3,
        refused: { pipelined: 0, requests_per_address: 5 },
        close: async () => {},
      };
      many.host.watchHttpPort('PORTCULLIS_CONSOLE_LISTEN', port);
      await many.ops('/metrics');
      await many.ops('/metrics');
      const text = await many.registry.metrics();
      expect(text)
        .to.include('portcullis_http_connections_evicted_total{port="console"} 3')
        .and.include('portcullis_http_requests_refused_total{port="console",limit="requests_per_address"} 5')
        .and.match(/portcullis_http_requests_refused_total\{port="ops",limit="requests_per_address"\} [1-9]/);
    } finally {
      await many.close();
    }
  });

  it('serves the metrics of the process', async () => {
    const response = await running.ops('/metrics');
    expect(response.headers.get('content-type')).to.match(/^text\/plain; version=0\.0\.4/);
    const text = await response.text();
    expect(text).to.match(/^process_cpu_seconds_total/m);
    expect(text).to.include('portcullis_service_info{service="test"} 1');
  });

  it('serves the routes that were added, with their headers', async () => {
    const response = await running.ops('/keys?n=5');
    expect(await response.json()).to.deep.equal({ n: '5' });
    expect(response.headers.get('cache-control')).to.equal('max-age=60');
    expect(response.headers.get('content-type')).to.equal('application/json');
  });

  it('answers HEAD without a body, and nothing but GET and HEAD', async () => {
    const head = await running.ops('/livez', { method: 'HEAD' });
    expect([head.status, await head.text()]).to.deep.equal([200, '']);
    const post = await running.ops('/livez', { method: 'POST', body: 'x' });
    expect([post.status, post.headers.get('allow')]).to.deep.equal([405, 'GET, HEAD']);
  });

  it('answers 404 to any other path', async () => {
    for (const path of ['/', '/livez/', '/__proto__', '/constructor', '/metrics/../livez/x']) {
      expect((await running.ops(path)).status, path).to.equal(404);
    }
  });

  it('logs why a route failed, and does not send it to the caller', async () => {
    const response = await running.ops('/broken');
    expect(response.status).to.equal(500);
    expect(await response.text()).to.not.include('hunter2');
    expect(running.lines.join('')).to.include('a route of an HTTP port failed').and.include('/broken');
  });

  it('rejects headers beyond its limit, and survives garbage', async () => {
    const long = await running.ops('/livez', { headers: { 'x-long': 'x'.repeat(HTTP_HEADER_BYTES_MAX) } });
    expect(long.status).to.equal(431);
    const [host = '', port] = running.host.opsAddress.split(':');
    await new Promise<void>((resolve) => {
      const socket = connect(Number(port), host, () => socket.write('\0\0nonsense\r\n\r\n'));
      socket
        .on('error', () => {})
        .on('close', () => resolve())
        .resume();
    });
    expect((await running.ops('/livez')).status).to.equal(200);
  });
});
