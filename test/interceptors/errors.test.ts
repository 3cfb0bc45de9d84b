/** Errors that are sent to the caller. */

import { expect } from 'chai';
import { declareErrors, GuardError, ServiceError, type StatusName } from '../../interceptors/src/errors.js';

const ShopError = declareErrors({ SOLD_OUT: 'FAILED_PRECONDITION' });

describe('declared errors', () => {
  it('carry the status that their reason was declared with', () => {
    const error = new ShopError('SOLD_OUT', 'the last one has just been sold', { retryAfterMs: 5 });
    expect(error).to.be.instanceOf(ServiceError);
    expect(error).to.include({ code: 'SOLD_OUT', status: 'FAILED_PRECONDITION', retryAfterMs: 5 });
  });

  it('include the reasons of the library', () => {
    expect(new ShopError('TOKEN_REVOKED', 'gone')).to.include({ status: 'UNAUTHENTICATED' });
  });

  it('reject a reason that was not declared', () => {
    const reason: string = 'TOO_LATE';
    // @ts-expect-error a reason that was not declared does not compile
    expect(() => new ShopError(reason, 'too late')).to.throw(TypeError, 'TOO_LATE is not a declared reason');
  });

  it('reject another status for a reason of the library', () => {
    const status: StatusName = 'ABORTED';
    expect(() => declareErrors({ TOKEN_INVALID: status })).to.throw(
      TypeError,
      'TOKEN_INVALID is a reason of the library with status UNAUTHENTICATED, got',
    );
  });

  it('keep the reasons of one service apart from those of another', () => {
    const OtherError = declareErrors({ CLOSED: 'UNAVAILABLE' });
    expect(new OtherError('CLOSED', 'come back tomorrow').status).to.equal('UNAVAILABLE');
    // @ts-expect-error CLOSED is a reason of another service
    expect(() => new ShopError('CLOSED', 'come back tomorrow')).to.throw(TypeError);
    expect(new GuardError('NOT_FOUND', 'no such method').name).to.equal('ServiceError');
  });
});
