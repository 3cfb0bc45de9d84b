/** One connection that sends much at once is served in turns: the others do not wait for all of it. */

import { once } from 'node:events';
import { type AddressInfo, connect, createServer, type Server, type Socket } from 'node:net';
import { expect } from 'chai';
import { RELAY_LIMITS } from '../../../gate/src/relay/limits.js';
import { Link } from '../../../gate/src/relay/link.js';
import { Turn } from '../../../gate/src/relay/turn.js';
import { until } from '../../support/waiting.js';
import { block } from '../support/hpack-writer.js';
import * as raw from '../support/raw-peer.js';
import { relayTo } from '../support/relay-kit.js';

const { frame, requestFields, RawPeer } = raw;
const PREFACE = Buffer.from('PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n');
const FLOOD_REQUESTS = 30_000;

/** The longest time for which the event loop may serve one connection, in milliseconds of the processor. */
const BLOCK_MS_MAX = 50;

/** Measures how long the event loop is held, in time of the processor: other programs do not count. */
function watchBlocks(): { stop(): number } {
  let longestUs = 0;
  let isStopped = false;
  let before = process.cpuUsage();
  const look = (): void => {
    const { user, system } = process.cpuUsage(before);
    before = process.cpuUsage();
    longestUs = Math.max(longestUs, user + system);
    if (!isStopped) setImmediate(look);
  };
  setImmediate(look);
  return {
    stop: () => {
      isStopped = true;
      return longestUs / 1000;
    },
  };
}

describe('gate: a connection that sends thousands of frames at once', () => {
  let listener: Server;
  let running: Awaited<ReturnType<typeof relayTo>>;
  let flooder: Socket;

  beforeEach(async () => {
    listener = createServer((socket) => RawPeer.server(socket));
    listener.listen(0, '127.0.0.1');
    await once(listener, 'listening');
    running = await relayTo((listener.address() as AddressInfo).port);
    flooder = connect(running.port, '127.0.0.1');
    flooder.on('error', () => {});
    flooder.resume();
    await once(flooder, 'connect');
  });

  afterEach(async () => {
    flooder.destroy();
    await running.relay.close();
    listener.close();
    expect(running.events).to.not.include('internal_error');
  });

  /** Refused requests: nothing is cheaper to send for what it costs here. */
  function floodBytes(): Buffer {
    const head = block(...requestFields('/a/Unary', 'Bearer bad'));
    const requests = Array.from({ length: FLOOD_REQUESTS }, (_, at) =>
      frame(raw.HEADERS, raw.END_STREAM | raw.END_HEADERS, 2 * at + 1, head),
    );
    return Buffer.concat([PREFACE, frame(raw.SETTINGS, 0, 0), ...requests]);
  }

  it('does not hold the event loop, and is served completely', async () => {
    const honest = await RawPeer.client(running.port);
    const bytes = floodBytes();
    await new Promise((resolve) => setImmediate(resolve));
    flooder.write(bytes);
    const blocks = watchBlocks();
    let answered = 0;
    while (running.judge.judged.length < FLOOD_REQUESTS) {
      await honest.settle();
      answered += 1;
    }
    const longest = blocks.stop();
    honest.destroy();
    expect(longest, 'longest turn of the event loop').to.be.below(BLOCK_MS_MAX);
    expect(answered, 'answers to another connection meanwhile').to.be.greaterThan(5);
  });
});

describe('gate: the turn of a peer', () => {
  it('stops reading its socket until others were served, and then all of it is read', async () => {
    const listener = createServer({ pauseOnConnect: false });
    listener.listen(0, '127.0.0.1');
    await once(listener, 'listening');
    const sender = connect((listener.address() as AddressInfo).port, '127.0.0.1');
    const [socket] = (await once(listener, 'connection')) as [Socket];
    let nowMs = 0;
    let frames = 0;
    const paused: number[] = [];
    const link: Link = new Link(
      socket,
      {
        isBlocked: false,
        isWithinBlock: false,
        frame: () => {
          frames += 1;
        },
      },
      {
        turnBegins: () => {},
        turnEnded: () => {
          link.settle();
          if (socket.isPaused()) paused.push(frames);
        },
        lost: () => {},
        closed: () => {},
      },
      // Every look at the clock takes longer than a turn may.
      {
        limits: RELAY_LIMITS,
        nowMs: () => {
          nowMs += RELAY_LIMITS.turnMs;
          return nowMs;
        },
      },
    );
    const ping = frame(raw.PING, 0, 0, Buffer.alloc(8));
    sender.write(Buffer.concat(Array.from({ length: 1000 }, () => ping)));
    await until(() => frames === 1000);
    sender.destroy();
    socket.destroy();
    listener.close();
    expect(paused.length, 'turns that were over').to.be.greaterThan(3);
    expect(paused[0]).to.be.below(200);
  });

  it('is over after its time, until the event loop has been round', async () => {
    let nowMs = 0;
    let continued = 0;
    const turn = new Turn(
      5,
      () => nowMs,
      () => {
        continued += 1;
      },
    );
    for (let frames = 0; frames < 1000; frames++) turn.count();
    expect(turn.isOver, 'no time has passed').to.equal(false);
    nowMs = 5;
    for (let frames = 0; frames < 64; frames++) turn.count();
    expect(turn.isOver).to.equal(true);
    await new Promise((resolve) => setImmediate(resolve));
    expect([turn.isOver, continued]).to.deep.equal([false, 1]);
    for (let frames = 0; frames < 64; frames++) turn.count();
    await new Promise((resolve) => setImmediate(resolve));
    expect(continued, 'a turn that was not over does not begin again').to.equal(1);
  });

  it('is not measured while a peer sends little', () => {
    let reads = 0;
    const turn = new Turn(
      5,
      () => {
        reads += 1;
        return 0;
      },
      () => {},
    );
    for (let frames = 0; frames < 63; frames++) turn.count();
    expect(reads).to.equal(0);
  });
});
