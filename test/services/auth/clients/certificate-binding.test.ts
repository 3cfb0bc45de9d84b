/** Tests of the binding of a client's tokens to its certificate. */

import { ServiceError } from '@portcullis/guard/errors';
import { expect } from 'chai';
import { certificateBindingOf } from '../../../../services/auth/clients/certificate-binding.js';
import type { Client } from '../../../../services/auth/records/clients.js';

const THUMBPRINT = 'A'.repeat(43);

describe('the tokens of a client', () => {
  const client = (certificateBound: boolean): Client => ({
    clientId: 'shop',
    generation: 1n,
    credentials: [],
    audiences: [],
    scopes: [],
    exchangeAudiences: [],
    exchangeScopes: undefined,
    certificateBound,
    disabled: false,
    createTime: new Date(0),
  });

  it('are bound to its certificate if the client or the token that it exchanges demands it', () => {
    for (const [isBound, mustBind] of [
      [true, false],
      [false, true],
      [true, true],
    ] as const) {
      expect(certificateBindingOf(client(isBound), THUMBPRINT, mustBind)).to.equal(THUMBPRINT);
      expect(() => certificateBindingOf(client(isBound), undefined, mustBind))
        .to.throw(ServiceError)
        .with.property('code', 'CERTIFICATE_REQUIRED');
    }
  });

  it('are not bound otherwise, with or without a certificate', () => {
    for (const thumbprint of [THUMBPRINT, undefined]) {
      expect(certificateBindingOf(client(false), thumbprint)).to.equal(undefined);
    }
    expect(certificateBindingOf(client(true), THUMBPRINT)).to.equal(THUMBPRINT);
  });
});
