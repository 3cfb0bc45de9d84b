/** Requests with several `authorization` headers, as bytes that no client library sends. */

import { Server } from '@grpc/grpc-js';
import { expect } from 'chai';
import { exposeRepeatedCredentials } from '../../../interceptors/src/wire/repeated-credentials.js';
import { encodeField } from '../../../proofs/shared/hpack.js';
import { type Answer, createPeer, EMPTY_MESSAGE, headersOf, type Peer } from '../../../proofs/shared/wire.js';
import { type Echo, startEcho } from '../../support/echo.js';
import { TestIssuer } from '../../support/issuer.js';

const UNAUTHENTICATED = 16;

describe('several authorization headers', () => {
  let echo: Echo;
  let peer: Peer;
  let good: string;
  let refused: string;

  before(async () => {
    const issuer = await TestIssuer.create();
    echo = await startEcho(issuer);
    peer = createPeer(`127.0.0.1:${echo.port}`);
    good = `Bearer ${await issuer.token()}`;
    refused = (await callWith('Bearer x')).fields;
  });

  after(async () => {
    peer?.close();
    await echo?.stop();
  });

  function callWith(...values: readonly string[]): Promise<Answer> {
    const fields = values.map((value) => encodeField('authorization', value));
    const block = Buffer.concat([headersOf('/test.v1.EchoService/Unary'), ...fields]);
    return peer.send({ block, body: EMPTY_MESSAGE });
  }

  it('are rejected like an invalid token, whichever of them is valid', async () => {
    expect((await callWith(good)).status).to.equal(0);
    for (const values of [
      [good, 'Bearer x'],
      ['Bearer x', good],
      [good, good],
      [good, ''],
      ['', good],
      [good, good, good],
      ['Basic eDp4', good],
    ]) {
      const answer = await callWith(...values);
      expect(answer.status, JSON.stringify(values)).to.equal(UNAUTHENTICATED);
      expect(answer.fields).to.equal(refused);
    }
    expect((await callWith(good)).status).to.equal(0);
  });

  it('cannot be detected in a grpc-js that keeps its servers elsewhere, so the server does not start', () => {
    const server = new Server();
    Reflect.set(server, 'http2Servers', undefined);
    expect(() => exposeRepeatedCredentials(server)).to.throw(TypeError, /found no map there/);
  });
});
