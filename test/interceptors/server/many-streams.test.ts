/**
 * Many live streams at once: a revocation cuts exactly those it hits, quickly, and without starving other
 * calls. `PORTCULLIS_TEST_STREAMS` sets the number of streams. Times are printed, and their limits are generous,
 * because client and server share this machine and this process.
 */

import { randomUUID } from 'node:crypto';
import { type ClientHttp2Session, type ClientHttp2Stream, connect } from 'node:http2';
import { setTimeout as sleep } from 'node:timers/promises';
import { expect } from 'chai';
import { EntryKind } from '../../../proto/gen/portcullis/revocation/v1/revocation.js';
import { type Echo, startEcho } from '../../support/echo.js';
import { TestIssuer } from '../../support/issuer.js';
import { until } from '../../support/waiting.js';

const STREAMS = Number(process.env['PORTCULLIS_TEST_STREAMS'] ?? '1000');
const STREAMS_PER_SESSION = 10;
const STREAMS_PER_CONNECTION = 100;

function frame(message: Buffer): Buffer {
  const head = Buffer.alloc(5);
  head.writeUInt32BE(message.length, 1);
  return Buffer.concat([head, message]);
}

/** One open stream, and how it ended. */
interface Open {
  readonly sid: string;
  readonly user: string;
  endedAtMs: number | undefined;
  status: string | undefined;
}

describe(`${STREAMS} live streams`, function () {
  this.timeout(120_000);

  let issuer: TestIssuer;
  let echo: Echo;
  const connections: ClientHttp2Session[] = [];
  const open: Open[] = [];
  const crowd = randomUUID();

  before(async () => {
    issuer = await TestIssuer.create();
    issuer.leaseMs = 30_000;
    echo = await startEcho(issuer, {
      limits: { callsPerUser: Number.POSITIVE_INFINITY, streamsPerUser: Number.POSITIVE_INFINITY },
    });
    await echo.guard.ready;
    const tokens: { token: string; sid: string; user: string }[] = [];
    for (let count = 0; count < STREAMS / STREAMS_PER_SESSION; count += 1) {
      // Half of all streams belong to one user with many sessions.
      const claims = issuer.claims(count % 2 === 0 ? { sub: crowd } : {});
      const user = String(claims['sub']);
      tokens.push({ token: await issuer.sign(claims), sid: String(claims['sid']), user });
    }
    for (let count = 0; count < STREAMS / STREAMS_PER_CONNECTION; count += 1) {
      const connection = connect(`http://127.0.0.1:${echo.port}`);
      connection.setMaxListeners(0);
      connections.push(connection);
    }
    let opened: Promise<void>[] = [];
    for (let count = 0; count < STREAMS; count += 1) {
      const owner = tokens[count % tokens.length];
      const connection = connections[count % connections.length];
      if (owner === undefined || connection === undefined) throw new Error('nothing to open');
      opened.push(openStream(connection, owner));
      if (opened.length === 500) {
        await Promise.all(opened);
        opened = [];
      }
    }
    await Promise.all(opened);
  });

  after(async () => {
    for (const connection of connections) connection.destroy();
    await echo.stop();
  });

  function request(connection: ClientHttp2Session, method: string, token: string): ClientHttp2Stream {
    return connection.request({
      ':method': 'POST',
      ':path': `/test.v1.EchoService/${method}`,
      'content-type': 'application/grpc',
      te: 'trailers',
      authorization: `Bearer ${token}`,
    });
  }

  function openStream(
    connection: ClientHttp2Session,
    { token, sid, user }: { token: string; sid: string; user: string },
  ): Promise<void> {
    const record: Open = { sid, user, endedAtMs: undefined, status: undefined };
    open.push(record);
    const stream = request(connection, 'ServerStream', token);
    stream.on('error', () => {});
    stream.on('trailers', (trailers) => {
      record.endedAtMs = performance.now();
      record.status = String(trailers['grpc-status']);
    });
    stream.end(frame(Buffer.from('hello')));
    return new Promise((resolve) => stream.once('data', () => resolve()));
  }

  /** Calls a unary method while `isOn` holds, and returns the duration of each call, in milliseconds. */
  async function callWhile(isOn: () => boolean): Promise<number[]> {
    const token = await issuer.token();
    const connection = connect(`http://127.0.0.1:${echo.port}`);
    const times: number[] = [];
    while (isOn()) {
      const begunMs = performance.now();
      const stream = request(connection, 'Unary', token);
      stream.end(frame(Buffer.from('x')));
      await new Promise((resolve) => {
        stream.once('end', resolve);
        stream.resume();
      });
      times.push(performance.now() - begunMs);
    }
    connection.destroy();
    return times.sort((a, b) => a - b);
  }

  const cutOf = (isHit: (stream: Open) => boolean): Open[] => open.filter((stream) => isHit(stream));

  async function untilCut(hit: readonly Open[]): Promise<void> {
    await until(() => hit.every((stream) => stream.endedAtMs !== undefined), { withinMs: 60_000, pollMs: 1 });
  }

  it('cuts the streams of a revoked session, and no others', async () => {
    const sid = open[1]?.sid ?? '';
    const entry = issuer.revokeSession(sid);
    const revokedMs = performance.now();
    echo.guard.syncNow();
    const hit = cutOf((stream) => stream.sid === sid);
    await untilCut(hit);
    const lastMs = Math.max(...hit.map((stream) => stream.endedAtMs ?? 0)) - revokedMs;
    console.info(`      ${hit.length} streams cut, the last after ${lastMs.toFixed(1)} ms`);
    expect(entry.sequence).to.equal(1n);
    expect(hit).to.have.length(STREAMS_PER_SESSION);
    expect(hit.every((stream) => stream.status === '16')).to.equal(true);
    await sleep(50);
    expect(cutOf((stream) => stream.endedAtMs !== undefined)).to.have.length(hit.length);
    expect(lastMs).to.be.lessThan(5000);
  });

  it('cuts half of all streams in slices, while other calls are served', async () => {
    let isOn = true;
    const quiet = callWhile(() => isOn);
    await sleep(300);
    isOn = false;
    const quietP99 = percentile(await quiet, 0.99);
    isOn = true;
    const meanwhile = callWhile(() => isOn);
    await sleep(20);
    issuer.revoke(EntryKind.ENTRY_KIND_USER, crowd, 2n);
    const revokedMs = performance.now();
    echo.guard.syncNow();
    const hit = cutOf((stream) => stream.user === crowd);
    await untilCut(hit);
    isOn = false;
    const times = await meanwhile;
    const lastMs = Math.max(...hit.map((stream) => stream.endedAtMs ?? 0)) - revokedMs;
    console.info(
      `      ${hit.length} streams cut, the last after ${lastMs.toFixed(0)} ms; other calls: p99 ` +
        `${percentile(times, 0.99).toFixed(1)} ms in ${times.length} calls, ${quietP99.toFixed(1)} ms before`,
    );
    expect(hit.length).to.be.within(STREAMS * 0.4, STREAMS * 0.6);
    expect(lastMs).to.be.lessThan(10_000 * Math.max(1, STREAMS / 2500));
    // No call waited for all of the cuts.
    if (lastMs > 100) expect(times[times.length - 1]).to.be.lessThan(lastMs);
  });
});

function percentile(sorted: readonly number[], part: number): number {
  return sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * part))] ?? 0;
}
