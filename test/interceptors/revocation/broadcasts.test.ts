/** A broadcast is accepted only when a key of the issuer signed it as a broadcast. */

import { randomUUID } from 'node:crypto';
import { writeFile } from 'node:fs/promises';
import { setTimeout as sleep } from 'node:timers/promises';
import { expect } from 'chai';
import { connect } from 'nats';
import { BROADCAST_BYTES_MAX } from '../../../interceptors/src/limits.js';
import {
  BROADCAST_SUBJECT,
  BROADCAST_TYPE,
  BroadcastReader,
  type Subscription,
  subscribeToBroadcasts,
} from '../../../interceptors/src/revocation/broadcasts.js';
import { Broadcast } from '../../../proto/gen/portcullis/revocation/v1/revocation.js';
import { type Nats, natsConfiguration, startNats } from '../../../scripts/system/nats.js';
import { makeTemporaryFolder } from '../../../scripts/system/temporary-folder.js';
import { rejectionOf } from '../../support/outcomes.js';
import { startRelay } from '../../support/tcp-relay.js';
import { until } from '../../support/waiting.js';
import { hmacToken, TestKey, tokenEntry, userPayload } from '../tokens-support.js';
import { broadcast } from './feed-support.js';

const key = new TestKey('EdDSA');
const message = broadcast([tokenEntry(randomUUID(), { sequence: 7n })]);
const payload = Broadcast.encode(message).finish();

async function readerWith(...keys: TestKey[]): Promise<BroadcastReader> {
  const reader = new BroadcastReader();
  reader.replaceKeys(await reader.importKeys(keys.map(({ published }) => published)));
  return reader;
}

function signed(signer: TestKey = key, header: object = {}, content: Uint8Array = payload): Promise<string> {
  return signer.sign(content, { typ: BROADCAST_TYPE, ...header });
}

describe('a broadcast reader', () => {
  it('reads a broadcast signed by a current key', async () => {
    const reader = await readerWith(key);
    const read = await reader.read(Buffer.from(await signed()));
    expect(read?.epoch).to.deep.equal(message.epoch);
    expect(read?.entries[0]?.entryId).to.deep.equal(message.entries[0]?.entryId);
  });

  it('reads nothing before it has a key', async () => {
    expect(await new BroadcastReader().read(Buffer.from(await signed()))).to.equal(undefined);
  });

  it('rejects every message that is not a broadcast signed by a current key', async () => {
    const reader = await readerWith(key);
    const good = await signed();
    const [header, , signature] = good.split('.');
    const other = Broadcast.encode(broadcast([tokenEntry(randomUUID())])).finish();
    const forged: Record<string, string> = {
      'signed by a key that is not in place': await signed(new TestKey('EdDSA')),
      'signed by another key under the name of one in place': await signed(
        new TestKey('EdDSA', key.published.kid),
      ),
      'an access token, should it be signed by this key': await key.sign(userPayload()),
      'a broadcast of the type of an access token': await signed(key, { typ: 'at+jwt' }),
      'with another payload under the signature': `${header}.${Buffer.from(other).toString('base64url')}.${signature}`,
      'with its bytes before the signature': `x${good}`,
      'with its own key in the header': await signed(key, { jwk: {} }),
      'of a symmetric algorithm': hmacToken(key.published.kid, key.published.jwk, {}),
      'a payload that is no broadcast': await signed(key, {}, Buffer.from('not a broadcast')),
      'plain bytes of a broadcast': Buffer.from(payload).toString('latin1'),
      nothing: '',
      JSON: '{"epoch":"","entries":[]}',
    };
    for (const [what, text] of Object.entries(forged)) {
      const bytes = Buffer.from(text, 'latin1');
      expect(await reader.read(bytes), what).to.equal(undefined);
      expect(reader.read(bytes, true), `${what}, at once`).to.equal(undefined);
    }
  });

  it('verifies synchronously on request', async () => {
    const reader = await readerWith(key);
    const bytes = Buffer.from(await signed());
    expect(reader.read(bytes)).to.be.instanceOf(Promise);
    const read = reader.read(bytes, true);
    expect(read).to.deep.equal(await reader.read(bytes));
    expect(read).to.have.property('entries').with.length(1);
  });

  it('reads a message of many entries', async () => {
    const reader = await readerWith(key);
    const entries = Array.from({ length: 2000 }, () => tokenEntry(randomUUID()));
    const long = await signed(key, {}, Broadcast.encode(broadcast(entries)).finish());
    expect(long.length).to.be.above(64 * 1024);
    expect((await reader.read(Buffer.from(long)))?.entries).to.have.length(2000);
  });

  it('accepts a message of 1 MiB, and does not even decode a larger one', async () => {
    // With this name, the lengths add up to the limit.
    const signer = new TestKey('EdDSA', 'key-1');
    const reader = await readerWith(signer);
    const [header = '', , signature = ''] = (await signed(signer)).split('.');
    const payloadBytes = Math.floor(((BROADCAST_BYTES_MAX - header.length - signature.length - 2) * 3) / 4);
    // A field that readers of this version do not know: tag, length in three bytes, content.
    const paddingBytes = payloadBytes - payload.length - 4;
    const length = [0, 7, 14].map((bits) => ((paddingBytes >> bits) & 0x7f) | (bits < 14 ? 0x80 : 0));
    const padding = Buffer.alloc(paddingBytes);
    const longest = Buffer.from(
      await signed(signer, {}, Buffer.concat([payload, Buffer.from([0x7a, ...length]), padding])),
    );
    expect(longest).to.have.length(BROADCAST_BYTES_MAX);
    expect((await reader.read(longest))?.entries).to.have.length(1);
    const longer = Buffer.concat([longest, Buffer.from('A')]);
    Object.defineProperty(longer, 'buffer', { get: () => expect.fail('decoded') });
    expect(reader.read(longer)).to.equal(undefined);
  });

  it('verifies asynchronously with keys that offer nothing else', async () => {
    const reader = new BroadcastReader();
    const ring = { has: () => true, keyIds: () => [], verify: async () => true };
    reader.replaceKeys({ text: '', ring });
    const read = reader.read(Buffer.from(await signed()), true);
    expect(read).to.be.instanceOf(Promise);
    expect((await read)?.entries).to.have.length(1);
  });

  it('rejects broadcasts of a key that left the set', async () => {
    const reader = await readerWith(key);
    const text = Buffer.from(await signed());
    reader.replaceKeys(await reader.importKeys([new TestKey('EdDSA').published]));
    expect(await reader.read(text)).to.equal(undefined);
  });

  it('keeps its keys when new ones cannot be imported', async () => {
    const reader = await readerWith(key);
    const outcome = await rejectionOf(reader.importKeys([{ kid: 'x', algorithm: 'HS256', jwk: '{}' }]));
    expect(outcome).to.be.instanceOf(Error);
    expect(await reader.read(Buffer.from(await signed()))).to.not.equal(undefined);
  });

  it('imports a key set once, however often it is received', async () => {
    const reader = await readerWith(key);
    const inPlace = await reader.importKeys([key.published]);
    expect(await reader.importKeys([{ ...key.published }])).to.equal(inPlace);
  });
});

/** The settings of a broker; inventory may subscribe to one subject. */
function authenticationOf(subject: string) {
  const user = (name: string, permissions: object) => ({ user: name, password: 'x', permissions });
  const users = [
    user('auth', {}),
    user('inventory', { publish: '_INBOX.>', subscribe: subject }),
    user('stranger', { publish: '>', subscribe: '_INBOX.>' }),
  ];
  return { authorization: { users } };
}

describe('a subscription to broadcasts', () => {
  let folder: Awaited<ReturnType<typeof makeTemporaryFolder>>;
  let server: Nats;
  let subscription: Subscription | undefined;
  let messages: string[];
  let states: string[];

  before(async () => {
    folder = await makeTemporaryFolder();
    const authentication = authenticationOf(BROADCAST_SUBJECT);
    server = await startNats({ dataDir: folder.path, port: 0, authentication });
  });
  after(async () => {
    await server.stop();
    await folder.remove();
  });
  afterEach(() => subscription?.close());

  function subscribe(user: string, port = server.port): void {
    [messages, states] = [[], []];
    subscription = subscribeToBroadcasts({
      url: `nats://${user}:x@127.0.0.1:${port}`,
      name: 'test',
      onMessage: (bytes) => messages.push(Buffer.from(bytes).toString()),
      onConnected: () => states.push('open'),
      onDisconnected: ({ state }) => states.push(state),
    });
  }

  /** Publishes as auth, and waits until the server has processed it. */
  async function publish(text: string): Promise<void> {
    const connection = await connect({ port: server.port, user: 'auth', pass: 'x' });
    connection.publish(BROADCAST_SUBJECT, text);
    connection.publish(`${BROADCAST_SUBJECT}.other`, 'another subject');
    await connection.drain();
  }

  it('misses no message from the moment at which it is connected', async () => {
    subscribe('inventory');
    await until(() => states.length > 0);
    await publish('first');
    await until(() => messages.length > 0);
    expect(messages).to.deep.equal(['first']);
    expect(states).to.deep.equal(['open']);
  });

  it('reports its loss, and that it is connected again', async () => {
    const relay = await startRelay(server.port);
    subscribe('inventory', relay.port);
    await until(() => states.length === 1);
    await relay.cut();
    await until(() => states.length === 2);
    await relay.mend();
    await until(() => states.length === 3);
    expect(states).to.deep.equal(['open', 'unreachable', 'open']);
    await publish('after the loss');
    await until(() => messages.length > 0);
    await subscription?.close();
    await relay.cut();
  });

  it('is refused to a user who may not subscribe, and delivers nothing', async () => {
    subscribe('stranger');
    await until(() => states.length > 0);
    await publish('secret');
    await sleep(50);
    expect(messages).to.deep.equal([]);
    expect(states).to.deep.equal(['refused']);
  });

  it('is refused when the permission is withdrawn, and works again when it is granted', async () => {
    const reconfigure = async (isPermitted: boolean): Promise<void> => {
      const authentication = authenticationOf(isPermitted ? BROADCAST_SUBJECT : '_INBOX.>');
      const text = natsConfiguration({ port: server.port, authentication });
      await writeFile(`${folder.path}/nats.conf`, text);
      server.kill('SIGHUP');
    };
    subscribe('inventory');
    await until(() => states.at(-1) === 'open');
    await reconfigure(false);
    await until(() => states.at(-1) === 'refused');
    await reconfigure(true);
    await until(() => states.at(-1) === 'open');
    await publish('after the grant');
    await until(() => messages.length > 0);
  });
});
