/** A call whose only response has passed the check: it ends with its handler's status, and reads no further message. */

import { status } from '@grpc/grpc-js';
import { expect } from 'chai';
import { verifiedToken } from '../tokens-support.js';
import { CLIENT_STREAM, FakeGuard, SERVER_STREAM, startFakeCall, UNARY } from './fake-calls.js';

describe('a call that revokes its own token', () => {
  const token = verifiedToken();
  let guard: FakeGuard;

  beforeEach(() => {
    guard = new FakeGuard();
    guard.admission = { kind: 'admitted', token, allowStale: false, requestBytesMax: 1000 };
  });

  it('is not cut between its response and its status', () => {
    const { call, inner } = startFakeCall(guard, UNARY);
    call.sendMessage('answer', () => {});
    guard.denial = 'TOKEN_REVOKED';
    for (const live of token.liveCalls()) live.recheck();
    call.sendStatus({ code: status.OK, details: '' });
    expect(inner.sent).to.deep.equal(['answer', 'OK']);
  });

  it('reads no further message after its response', () => {
    const { call, below, received } = startFakeCall(guard, CLIENT_STREAM);
    below.onReceiveMessage('first');
    call.sendMessage('answer', () => {});
    guard.denial = 'TOKEN_REVOKED';
    below.onReceiveMessage('second');
    expect(received).to.deep.equal(['metadata', 'first']);
  });

  it('is cut before its response, and between the messages of a stream', () => {
    const unary = startFakeCall(guard, UNARY);
    guard.denial = 'TOKEN_REVOKED';
    unary.call.sendMessage('answer', () => {});
    guard.denial = undefined;
    const stream = startFakeCall(guard, SERVER_STREAM);
    stream.call.sendMessage('one', () => {});
    guard.denial = 'TOKEN_REVOKED';
    stream.call.sendMessage('two', () => {});
    expect([...unary.inner.sent, ...stream.inner.sent]).to.deep.equal([
      'UNAUTHENTICATED TOKEN_REVOKED',
      'one',
      'UNAUTHENTICATED TOKEN_REVOKED',
    ]);
  });
});
