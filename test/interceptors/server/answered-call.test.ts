/** A call whose only response has passed the check: it ends with its handler's status, and reads no further message. */

import { Metadata, type ServerInterceptingCallInterface, status } from '@grpc/grpc-js';
import { expect } from 'chai';
import { systemClock } from '../../../interceptors/src/clock.js';
import { type DenialReason, VerifiedToken } from '../../../interceptors/src/revocation/verified-tokens.js';
import { CallLimits } from '../../../interceptors/src/server/call-limits.js';
import { DEFAULT_LIMITS } from '../../../interceptors/src/server/guard-limits.js';
import { type CallGuard, guardCall } from '../../../interceptors/src/server/guarded-call.js';
import { claims } from '../tokens-support.js';

type Listener = Parameters<ServerInterceptingCallInterface['start']>[0];

describe('a call that revokes its own token', () => {
  let objection: DenialReason | undefined;
  let sent: (string | number)[];
  let received: unknown[];
  let below: Listener;

  /** Starts an admitted call, and records what it sends. */
  function started(method: { requestStream: boolean; responseStream: boolean }) {
    const inner: ServerInterceptingCallInterface = {
      start: (listener: Listener) => {
        below = listener;
      },
      sendMetadata: () => {},
      sendMessage: (message) => void sent.push(String(message)),
      sendStatus: ({ code }) => void sent.push(code ?? status.UNKNOWN),
      startRead: () => {},
      getPeer: () => 'peer',
      getDeadline: () => Number.POSITIVE_INFINITY,
      getHost: () => '',
      getAuthContext: () => ({}),
      getConnectionInfo: () => ({}),
      getMetricsRecorder: () => {
        throw new TypeError('an unexpected call');
      },
    };
    const token = new VerifiedToken('text', claims());
    const guard: CallGuard = {
      limits: new CallLimits(DEFAULT_LIMITS, systemClock, () => false),
      addressOf: () => '',
      onLimit: () => {},
      admit: () => ({ kind: 'admitted', token, allowStale: false, requestBytesMax: 1000 }),
      denialReason: () => objection,
      validForMs: () => 1,
      handlerFailed: () => {},
      onDecision: () => {},
      reportAdmitted: () => {},
      reportRefused: () => {},
    };
    const call = guardCall({ path: '/test.v1.Test/Call', ...method }, inner, guard);
    call.start({
      onReceiveMetadata: () => {},
      onReceiveMessage: (message) => received.push(message),
      onReceiveHalfClose: () => {},
      onCancel: () => {},
    });
    below.onReceiveMetadata(new Metadata());
    return { call, token };
  }

  beforeEach(() => {
    objection = undefined;
    sent = [];
    received = [];
  });

  it('is not cut between its response and its status', () => {
    const { call, token } = started({ requestStream: false, responseStream: false });
    call.sendMessage('answer', () => {});
    objection = 'TOKEN_REVOKED';
    for (const live of token.liveCalls()) live.recheck();
    call.sendStatus({ code: status.OK, details: '' });
    expect(sent).to.deep.equal(['answer', status.OK]);
  });

  it('reads no further message after its response', () => {
    const { call } = started({ requestStream: true, responseStream: false });
    below.onReceiveMessage('first');
    call.sendMessage('answer', () => {});
    objection = 'TOKEN_REVOKED';
    below.onReceiveMessage('second');
    expect(received).to.deep.equal(['first']);
  });

  it('is cut before its response, and between the messages of a stream', () => {
    const unary = started({ requestStream: false, responseStream: false }).call;
    objection = 'TOKEN_REVOKED';
    unary.sendMessage('answer', () => {});
    objection = undefined;
    const stream = started({ requestStream: false, responseStream: true }).call;
    stream.sendMessage('one', () => {});
    objection = 'TOKEN_REVOKED';
    stream.sendMessage('two', () => {});
    expect(sent).to.deep.equal([status.UNAUTHENTICATED, 'one', status.UNAUTHENTICATED]);
  });
});
