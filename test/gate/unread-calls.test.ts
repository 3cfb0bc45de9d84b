/** Public calls whose responses are not read, end to end: an engine, a server, and clients that leave no room. */

import { writeFileSync } from 'node:fs';
import { connect } from 'node:net';
import { join } from 'node:path';
import { expect } from 'chai';
import type { GateSettings } from '../../gate/src/settings.js';
import { until } from '../support/waiting.js';
import { echoDescriptors, type GateUnderTest, SILENT, startGateUnderTest } from './gate-support.js';
import * as raw from './support/raw-peer.js';

const { frame, uint32, RawPeer } = raw;
const PUBLIC = '/test.v1.EchoService/Public';
const CALLS_MAX = 4;
const RESPONSE_MS = 3_000;

/** SETTINGS_INITIAL_WINDOW_SIZE of 0: no response has room. */
const NO_ROOM = Buffer.concat([Buffer.of(0, 4), uint32(0)]);

/** A message of gRPC. */
const MESSAGE = Buffer.concat([Buffer.of(0, 0, 0, 0, 5), Buffer.from('hello')]);

const ALL_RULES = `services:
  test.v1.EchoService:
    Public: public
${[
  'Unary',
  'ClientStream',
  'ServerStream',
  'Bidi',
  'Stale',
  'StaleStream',
  'Services',
  'Users',
  'Operators',
  'TwoScopes',
  'Fresh',
]
  .map((name) => `    ${name}: {}\n`)
  .join('')}`;

/** The schema says that the method is unary: of streams only half as many are admitted. */
function withSchema(folder: string): Partial<GateSettings> {
  const [descriptors, file] = [join(folder, 'echo.binpb'), join(folder, 'all.yaml')];
  writeFileSync(descriptors, echoDescriptors());
  writeFileSync(file, ALL_RULES);
  return { rules: { descriptors, file, publicMethods: [], health: 'public', reflection: 'closed' } };
}

describe('gate: public calls whose responses are not read', () => {
  let under: GateUnderTest;
  const peers: raw.RawPeer[] = [];

  async function start(responseMs: number): Promise<void> {
    const limits = { publicCalls: CALLS_MAX, publicCallsPerAddress: CALLS_MAX, responseMs };
    under = await startGateUnderTest(withSchema, SILENT, limits);
  }

  afterEach(async () => {
    for (const peer of peers.splice(0)) peer.destroy();
    await under.stop();
  });

  const port = (): number => Number(under.gate.addresses.listen?.split(':')[1]);

  async function open(settings: Buffer, localAddress: string): Promise<raw.RawPeer> {
    const socket = connect({ port: port(), host: '127.0.0.1', localAddress });
    const peer = await RawPeer.clientOn(socket, settings);
    peers.push(peer);
    return peer;
  }

  function call(peer: raw.RawPeer, id: number): void {
    peer.request(id, PUBLIC, raw.END_HEADERS);
    peer.send(frame(raw.DATA, raw.END_STREAM, id, MESSAGE));
  }

  /** A client that leaves as many responses unread as it can have calls. */
  async function greedy(): Promise<raw.RawPeer> {
    const peer = await open(NO_ROOM, '127.0.0.1');
    for (let at = 0; at < CALLS_MAX; at++) call(peer, 2 * at + 1);
    await until(() => under.upstream.received.length === CALLS_MAX);
    expect(under.engine.state().publicCalls).to.equal(CALLS_MAX);
    return peer;
  }

  it('do not keep calls of others from being admitted', async () => {
    await start(Number.POSITIVE_INFINITY);
    const unread = await greedy();
    const other = await open(Buffer.alloc(0), '127.0.0.2');
    let id = 1;
    const outcomes: string[] = [];
    while (outcomes.at(-1) !== '0' && outcomes.length < 100) {
      call(other, id);
      outcomes.push(await other.end(id));
      id += 2;
      await new Promise((resolve) => setTimeout(resolve, 100));
    }
    expect(outcomes.at(-1), 'a call of another network is admitted').to.equal('0');
    expect(
      unread.frames.some(({ type, flags }) => type === raw.HEADERS && (flags & raw.END_STREAM) !== 0),
    ).to.equal(true);
  });

  it('end within the limit for responses', async () => {
    await start(RESPONSE_MS);
    const unread = await greedy();
    const startedMs = performance.now();
    await until(() => under.engine.state().publicCalls === 0, { withinMs: 30_000 });
    // The relay looks once a second, and the engine four times.
    expect(performance.now() - startedMs).to.be.greaterThan(RESPONSE_MS - 1_000);
    for (let at = 0; at < CALLS_MAX; at++) expect(await unread.end(2 * at + 1)).to.not.equal('0');
  });
});
