/** The streams of live pages, over HTTP without auth. */

import { once } from 'node:events';
import { createServer, get, type IncomingMessage, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import { status } from '@grpc/grpc-js';
import { statusOf } from '@portcullis/guard';
import { GuardError } from '@portcullis/guard/errors';
import { expect } from 'chai';
import { CallError } from '../../../../services/auth/console/calls.js';
import { html } from '../../../../services/auth/console/html.js';
import {
  createLiveStreams,
  type LivePart,
  type LiveStreams,
} from '../../../../services/auth/console/live.js';
import { MovableClock } from '../../../support/clock.js';
import { until } from '../../../support/waiting.js';

const PART: LivePart = { body: html`<p>a state</p>`, summary: 'a state', isFinal: false };

/** What a browser has received of a stream. */
interface Stream {
  events(): string[];
  hasEnded(): boolean;
  readonly status: number;
}

/** Auth's answer about an entry that has left the log. */
const { code, details, metadata } = statusOf(new GuardError('NOT_FOUND', 'there is no such entry'));
const GONE = new CallError(code, details, metadata);

describe('a live stream', () => {
  const clock = new MovableClock();
  let streams: LiveStreams;
  let server: Server;
  let read: () => Promise<LivePart>;

  beforeEach(async () => {
    read = async () => PART;
    streams = createLiveStreams(clock);
    server = createServer((_, to) => {
      to.on('error', () => {});
      const running = streams.run('a login', to, { intervalMs: 10, read: () => read() });
      // As the console answers what is thrown before the stream begins.
      running.catch(() => to.writeHead(404).end());
    }).listen(0, '127.0.0.1');
    await once(server, 'listening');
  });

  afterEach(() => {
    streams.close();
    server.close();
  });

  const open = async (method = 'GET'): Promise<Stream> => {
    const { port } = server.address() as AddressInfo;
    const request = get({ host: '127.0.0.1', port, agent: false, method });
    request.on('error', () => {});
    const [response] = (await once(request, 'response')) as [IncomingMessage];
    let text = '';
    let isEnded = false;
    response.setEncoding('utf8').on('data', (chunk: string) => {
      text += chunk;
    });
    response.on('error', () => {});
    response.once('end', () => {
      isEnded = true;
    });
    return {
      events: () => [...text.matchAll(/^event: (.*)$/gm)].map(([, event = '']) => event),
      hasEnded: () => isEnded,
      status: response.statusCode ?? 0,
    };
  };

  it('ends the oldest of four streams of a login with an event that reports it', async () => {
    const opened: Stream[] = [];
    for (let count = 0; count < 4; count += 1) opened.push(await open());
    const [oldest, ...others] = opened;
    await until(() => oldest?.hasEnded() === true, { withinMs: 2000, pollMs: 10 });
    expect(oldest?.events()).to.deep.equal(['change', 'replaced']);
    expect(others.map((stream) => stream.hasEnded())).to.deep.equal([false, false, false]);
  });

  it('sends a heartbeat after two seconds without a change, and none while the part cannot be read', async () => {
    const stream = await open();
    await until(() => stream.events().length === 1, { withinMs: 2000, pollMs: 10 });
    let failures = 0;
    read = async () => {
      failures += 1;
      throw new CallError(status.UNAVAILABLE, 'auth does not respond');
    };
    clock.passMonotonic(2_000);
    await until(() => failures > 3, { withinMs: 2000, pollMs: 10 });
    expect(stream.events()).to.deep.equal(['change']);
    read = async () => PART;
    await until(() => stream.events().length === 2, { withinMs: 1000, pollMs: 10 });
    expect(stream.events()).to.deep.equal(['change', 'heartbeat']);
  });

  it('has the status of a failure that another reading does not mend, and ends when it comes later', async () => {
    const stream = await open();
    await until(() => stream.events().length === 1, { withinMs: 2000, pollMs: 10 });
    read = () => Promise.reject(GONE);
    await until(() => stream.hasEnded(), { withinMs: 2000, pollMs: 10 });
    expect([(await open()).status, (await open('HEAD')).status]).to.deep.equal([404, 404]);
  });

  it('answers a HEAD request without a stream, and ends no other stream for it', async () => {
    const opened = [await open(), await open(), await open()];
    const probe = await open('HEAD');
    await until(() => probe.hasEnded(), { withinMs: 2000, pollMs: 10 });
    expect(probe.status).to.equal(200);
    expect(opened.map((stream) => stream.hasEnded())).to.deep.equal([false, false, false]);
  });

  it('reads ever less often while auth does not respond', async () => {
    const stream = await open();
    await until(() => stream.events().length === 1, { withinMs: 2000, pollMs: 10 });
    let readings = 0;
    read = async () => {
      readings += 1;
      throw new CallError(status.UNAVAILABLE, 'auth does not respond');
    };
    await sleep(600);
    // After 20, 40, 80, 160 and 320 ms; without the pauses, there would be about 60.
    expect(readings).to.be.within(2, 7);
  });

  it('does not begin once the streams are closed', async () => {
    streams.close();
    expect(await open().then(String, (error: unknown) => (error as { code: string }).code)).to.equal(
      'ECONNRESET',
    );
  });
});
