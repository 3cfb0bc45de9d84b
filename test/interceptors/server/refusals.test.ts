/** The errors and statuses with which a guard refuses calls. */

import { status } from '@grpc/grpc-js';
import { expect } from 'chai';
import {
  CUT_STATUSES,
  limitRefusal,
  limitStatus,
  refusal,
  sharedRefusal,
} from '../../../interceptors/src/server/refusals.js';
import { errorOf } from '../../../interceptors/src/wire/status.js';

describe('a refusal', () => {
  it('has a delay only where a later attempt can succeed without a change by the caller', () => {
    const delays = {
      TOKEN_MISSING: undefined,
      TOKEN_INVALID: undefined,
      TOKEN_EXPIRED: undefined,
      TOKEN_REVOKED: undefined,
      TLS_REQUIRED: undefined,
      REVOCATION_STATE_STALE: 1000,
      DEPENDENCY_UNAVAILABLE: 1000,
    } as const;
    for (const [code, retryAfterMs] of Object.entries(delays)) {
      const known = code as keyof typeof delays;
      expect(refusal(known), code).to.include({ code, retryAfterMs });
      expect(sharedRefusal(known), code).to.include({ code, retryAfterMs });
      expect(sharedRefusal(known).message).to.equal(refusal(known).message);
    }
  });

  it('by a limit has a delay unless the request itself is at fault, and names the limit', () => {
    const codes = {
      request_bytes: ['REQUEST_TOO_LARGE', undefined],
      request_seconds: ['REQUEST_TIMEOUT', undefined],
      public_idle_seconds: ['REQUEST_TIMEOUT', undefined],
      bytes_in_flight: ['RATE_LIMITED', 1000],
      calls_per_user: ['RATE_LIMITED', 1000],
      verifications: ['RATE_LIMITED', 1000],
    } as const;
    for (const [limit, [code, retryAfterMs]] of Object.entries(codes)) {
      const error = limitRefusal(limit as keyof typeof codes);
      expect(error, limit).to.include({ code, retryAfterMs });
      expect(error.message).to.match(new RegExp(`^[a-z ]+ \\(limit ${limit}\\)$`));
    }
  });

  it('that is shared is one object, and one that is thrown is new', () => {
    expect(sharedRefusal('TOKEN_INVALID')).to.equal(sharedRefusal('TOKEN_INVALID'));
    expect(sharedRefusal('TOKEN_INVALID')).to.not.equal(sharedRefusal('TOKEN_EXPIRED'));
    expect(limitRefusal('verifications')).to.equal(limitRefusal('verifications'));
    expect(refusal('TOKEN_INVALID')).to.not.equal(refusal('TOKEN_INVALID'));
  });

  it('ends a call with the status of its error', () => {
    expect(errorOf(limitStatus('request_bytes'))).to.include({
      code: status.RESOURCE_EXHAUSTED,
      reason: 'REQUEST_TOO_LARGE',
    });
    const cuts = Object.entries(CUT_STATUSES).map(([reason, cut]) => [reason, errorOf(cut)] as const);
    expect(cuts.map(([reason, error]) => [reason, error.reason, status[error.code]])).to.deep.equal([
      ['TOKEN_EXPIRED', 'TOKEN_EXPIRED', 'UNAUTHENTICATED'],
      ['TOKEN_REVOKED', 'TOKEN_REVOKED', 'UNAUTHENTICATED'],
      ['REVOCATION_STATE_STALE', 'REVOCATION_STATE_STALE', 'UNAVAILABLE'],
    ]);
  });
});
