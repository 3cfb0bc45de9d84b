/** What the adapters of handlers report. */

import { EventEmitter } from 'node:events';
import { Metadata, type ServerUnaryCall, status } from '@grpc/grpc-js';
import { expect } from 'chai';
import { attachState } from '../../../interceptors/src/server/call-state.js';
import { unary } from '../../../interceptors/src/server/handlers.js';

describe('a handler that throws', () => {
  /** Runs a handler whose call has ended if `ended` is given. @returns the status and the reported failures */
  async function run(thrown: unknown, ended?: unknown) {
    const failures: unknown[] = [];
    const metadata = new Metadata();
    attachState(metadata, {
      path: '/test.v1.Test/Call',
      principal: undefined,
      bearer: undefined,
      signal: ended === undefined ? new AbortController().signal : AbortSignal.abort(ended),
      certificateThumbprint: undefined,
      stillAllowed: () => 0,
      reportFailure: (error) => void failures.push(error),
    });
    const call: ServerUnaryCall<undefined, undefined> = Object.assign(new EventEmitter(), {
      metadata,
      request: undefined,
      cancelled: false,
      getPeer: () => 'peer',
      sendMetadata: () => {},
      getDeadline: () => Number.POSITIVE_INFINITY,
      getPath: () => '/test.v1.Test/Call',
      getHost: () => '',
      getAuthContext: () => ({}),
      getMetricsRecorder: () => {
        throw new TypeError('an unexpected call');
      },
    });
    const code = await new Promise<status | undefined>((resolve) => {
      const handle = unary<undefined, undefined>(() => Promise.reject(thrown));
      handle(call, (error) => resolve(error?.code));
    });
    return { code, failures };
  }

  it('is reported, unless it stops because its call has ended', async () => {
    const ended = new DOMException('the call has ended', 'AbortError');
    const fault = new TypeError('a fault');
    expect(await run(fault)).to.deep.equal({ code: status.INTERNAL, failures: [fault] });
    expect(await run(fault, ended)).to.deep.equal({ code: status.INTERNAL, failures: [fault] });
    expect(await run(ended, ended)).to.deep.equal({ code: status.INTERNAL, failures: [] });
  });
});
