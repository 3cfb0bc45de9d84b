import { once } from 'node:events';
import { status } from '@grpc/grpc-js';
import { expect } from 'chai';
import { ended, type Relayed, startRelayed, withToken } from '../support/relay-kit.js';

describe('gate: relay between clients and servers of grpc-js', () => {
  let relayed: Relayed;
  /** The test makes the relay fail. */
  let toleratesErrors = false;

  beforeEach(async () => {
    relayed = await startRelayed();
  });

  afterEach(async () => {
    await relayed.stop();
    expect([...relayed.judge.live]).to.be.empty;
    if (!toleratesErrors) expect(relayed.events).to.not.include('internal_error');
    toleratesErrors = false;
  });

  it('passes a unary call with its metadata, response and trailers', async () => {
    const outcome = await relayed.client.unary(
      Buffer.from('hello'),
      withToken(undefined, { 'x-mine': 'a,b' }),
    );
    expect(outcome.code, outcome.details).to.equal(status.OK);
    expect(String(outcome.messages[0])).to.equal('hello');
    expect(outcome.trailers.get('x-trailer')).to.deep.equal(['yes']);
    expect(relayed.received[0]?.get('x-mine')).to.deep.equal(['a,b']);
  });

  it('strips the token and what claims to come from the gate, and adds the identity', async () => {
    relayed.judge.identity = [['x-portcullis-subject', 'alice']];
    await relayed.client.unary(Buffer.from('x'), withToken(undefined, { 'x-portcullis-subject': 'mallory' }));
    expect(relayed.received[0]?.get('authorization')).to.be.empty;
    expect(relayed.received[0]?.get('x-portcullis-subject')).to.deep.equal(['alice']);
  });

  it('refuses a call without a valid token, and the server receives nothing', async () => {
    const outcome = await relayed.client.unary(Buffer.from('x'), withToken('Bearer bad'));
    expect(outcome.code).to.equal(status.UNAUTHENTICATED);
    expect(outcome.details).to.equal('the token is not valid');
    expect(outcome.trailers.get('x-reason')).to.deep.equal(['TOKEN_INVALID']);
    expect(relayed.received).to.be.empty;
  });

  it('passes an error of the server with its details', async () => {
    const outcome = await relayed.client.unary(Buffer.from('x'), withToken(undefined, { 'x-fail': '9' }));
    expect(outcome.code).to.equal(status.FAILED_PRECONDITION);
    expect(outcome.details).to.equal('failed: ü');
    expect(outcome.trailers.get('x-detail-bin')).to.deep.equal([Buffer.from([0, 1, 2, 255])]);
  });

  it('passes streams in all directions', async () => {
    const parts = Array.from({ length: 50 }, (_, index) => Buffer.alloc(1000 + index, index));
    const joined = await relayed.client.clientStream(parts);
    expect(joined.equals(Buffer.concat(parts))).to.equal(true);
    const server = await ended(
      relayed.client.serverStream(Buffer.from('s'), withToken(undefined, { 'x-count': '20' })),
    );
    expect(server.code).to.equal(status.OK);
    expect(server.messages).to.have.length(20);
    const bidi = relayed.client.bidi();
    const outcome = ended(bidi);
    for (const part of parts) bidi.write(part);
    bidi.end();
    expect(Buffer.concat((await outcome).messages).equals(Buffer.concat(parts))).to.equal(true);
  });

  it('passes messages of 20 MB in both directions', async () => {
    relayed.judge.requestBytesMax = 64 * 1024 * 1024;
    const big = Buffer.alloc(20 * 1024 * 1024, 'abcdefg');
    const joined = await relayed.client.clientStream([big.subarray(0, 4_000_000)]);
    expect(joined).to.have.length(4_000_000);
    const streamed = await ended(
      relayed.client.serverStream(big.subarray(0, 4_000_000), withToken(undefined, { 'x-count': '5' })),
    );
    expect(streamed.messages).to.have.length(5);
    expect(streamed.messages.every((message) => message.equals(big.subarray(0, 4_000_000)))).to.equal(true);
  });

  it('refuses a message larger than the method admits', async () => {
    relayed.judge.requestBytesMax = 1000;
    const outcome = await relayed.client.unary(Buffer.alloc(1001));
    expect(outcome.code).to.equal(status.RESOURCE_EXHAUSTED);
    expect(relayed.received).to.have.length.at.most(1);
    expect((await relayed.client.unary(Buffer.alloc(1000))).code).to.equal(status.OK);
  });

  it('cuts a stream with the status when its token is revoked', async () => {
    const call = relayed.client.bidi();
    const outcome = ended(call);
    call.write(Buffer.from('one'));
    await once(call, 'data');
    relayed.judge.revoke();
    const { code, details, trailers } = await outcome;
    expect(code).to.equal(status.UNAUTHENTICATED);
    expect(details).to.equal('the token is revoked');
    expect(trailers.get('x-reason')).to.deep.equal(['TOKEN_REVOKED']);
  });

  it('cuts a stream that its client does not read', async () => {
    const call = relayed.client.serverStream(
      Buffer.alloc(10_000),
      withToken(undefined, { 'x-count': '10000' }),
    );
    const outcome = new Promise<number>((resolve) => call.on('status', ({ code }) => resolve(code)));
    call.on('error', () => {});
    await once(call, 'metadata');
    call.pause();
    await new Promise((resolve) => setTimeout(resolve, 200));
    relayed.judge.revoke();
    call.resume();
    expect(await outcome).to.equal(status.UNAUTHENTICATED);
  });

  it('lets the deadline and the cancellation of a client reach the server', async () => {
    const late = await relayed.client.unary(Buffer.from('x'), withToken(undefined, { 'x-hang': '1' }), 300);
    expect(late.code).to.equal(status.DEADLINE_EXCEEDED);
    const call = relayed.client.bidi();
    const outcome = ended(call);
    call.write(Buffer.from('one'));
    await once(call, 'data');
    call.cancel();
    expect((await outcome).code).to.equal(status.CANCELLED);
  });

  it('ends calls with UNAVAILABLE when the connection to the server breaks, and connects again', async () => {
    const call = relayed.client.bidi();
    const outcome = ended(call);
    call.write(Buffer.from('one'));
    await once(call, 'data');
    relayed.serverSockets[0]?.destroy();
    expect((await outcome).code).to.equal(status.UNAVAILABLE);
    const again = await relayed.client.unary(Buffer.from('x'));
    expect(again.code, again.details).to.equal(status.OK);
    expect(relayed.events).to.include('server_lost');
  });

  it('answers UNAVAILABLE while the server cannot be reached, and refuses as before', async () => {
    relayed.server.forceShutdown();
    const outcome = await relayed.client.unary(Buffer.from('x'));
    expect(outcome.code).to.equal(status.UNAVAILABLE);
    const refused = await relayed.client.unary(Buffer.from('x'), withToken('Bearer bad'));
    expect(refused.code).to.equal(status.UNAUTHENTICATED);
    expect(relayed.events).to.include('server_unreachable');
  });

  it('ends a call whose decision cannot be carried out', async () => {
    await relayed.stop();
    toleratesErrors = true;
    relayed = await startRelayed({ toleratesErrors });
    relayed.judge.identityHeaders = () => {
      throw new Error('no identity');
    };
    relayed.judge.waiting = Promise.resolve();
    const late = await relayed.client.unary(Buffer.from('x'), withToken(), 3000);
    expect([late.code, late.details]).to.deep.equal([status.INTERNAL, 'internal error']);
    expect(relayed.events).to.deep.equal(['internal_error']);
    expect([...relayed.judge.live], 'the call is unlinked').to.be.empty;
    expect(relayed.received).to.be.empty;
  });

  it('keeps the order of what waits for a decision', async () => {
    let decide: () => void = () => {};
    relayed.judge.waiting = new Promise((resolve) => {
      decide = resolve;
    });
    const parts = Array.from({ length: 20 }, (_, index) => Buffer.alloc(500, index));
    const first = relayed.client.clientStream(parts);
    const second = relayed.client.unary(Buffer.from('second'));
    await new Promise((resolve) => setTimeout(resolve, 50));
    expect(relayed.received).to.be.empty;
    relayed.judge.waiting = undefined;
    const third = await relayed.client.unary(Buffer.from('third'));
    expect(third.code).to.equal(status.OK);
    decide();
    expect((await first).equals(Buffer.concat(parts))).to.equal(true);
    expect((await second).code).to.equal(status.OK);
  });

  it('drains: calls in progress end, then the connections', async () => {
    const call = relayed.client.bidi();
    const outcome = ended(call);
    call.write(Buffer.from('one'));
    await once(call, 'data');
    const drained = relayed.relay.drain(5000);
    await new Promise((resolve) => setTimeout(resolve, 50));
    call.write(Buffer.from('two'));
    call.end();
    expect((await outcome).code).to.equal(status.OK);
    await drained;
    expect(relayed.relay.connections).to.equal(0);
  });
});
