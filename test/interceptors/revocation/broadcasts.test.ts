/** A broadcast is accepted only when a key of the issuer signed it as a broadcast. */

import { randomUUID } from 'node:crypto';
import { expect } from 'chai';
import { BROADCAST_BYTES_MAX } from '../../../interceptors/src/limits.js';
import { BROADCAST_TYPE, BroadcastReader } from '../../../interceptors/src/revocation/broadcasts.js';
import { Broadcast } from '../../../proto/gen/portcullis/revocation/v1/revocation.js';
import { rejectionOf } from '../../support/outcomes.js';
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

  it('rejects a message above the size limit', async () => {
    const reader = await readerWith(key);
    const entries = Array.from({ length: 2000 }, () => tokenEntry(randomUUID()));
    const long = await signed(key, {}, Broadcast.encode(broadcast(entries)).finish());
    expect(long.length)
      .to.be.above(64 * 1024)
      .and.below(BROADCAST_BYTES_MAX);
    expect((await reader.read(Buffer.from(long)))?.entries).to.have.length(2000);
    const endless = await signed(key, {}, Buffer.alloc(BROADCAST_BYTES_MAX * 0.75));
    expect(endless.length).to.be.above(BROADCAST_BYTES_MAX);
    expect(await reader.read(Buffer.from(endless))).to.equal(undefined);
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
