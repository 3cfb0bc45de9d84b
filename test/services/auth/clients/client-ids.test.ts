/** Tests of the identifiers of clients. */

import { randomUUID } from 'node:crypto';
import { ServiceError } from '@portcullis/guard/errors';
import { expect } from 'chai';
import { clientIdFault, requireClientId } from '../../../../services/auth/clients/client-ids.js';

describe('the id of a client', () => {
  it('has 1 to 64 lower-case letters, digits and some marks, and begins with a letter or digit', () => {
    for (const clientId of ['a', '0', 'a.b_c-d', `a${'-'.repeat(63)}`, 'direct', 'authority']) {
      expect(clientIdFault(clientId), clientId).to.equal(undefined);
      expect(() => requireClientId(clientId)).to.not.throw();
    }
    for (const clientId of ['', 'A', '-a', '.a', 'a b', 'a\n', '\na', 'ä', 'a/b', 'a'.repeat(65)]) {
      expect(clientIdFault(clientId), JSON.stringify(clientId)).to.match(/^must be 1 to 64 lower-case/);
      expect(() => requireClientId(clientId)).to.throw(ServiceError, 'there is no such client');
    }
  });

  it('is neither that of auth nor a user id', () => {
    expect(clientIdFault('auth')).to.equal('must not be auth');
    expect(clientIdFault('portcullis-canary')).to.equal('must not be portcullis-canary');
    expect(clientIdFault(randomUUID())).to.equal('must not be a UUID');
    for (const clientId of ['auth', randomUUID()]) {
      expect(() => requireClientId(clientId)).to.throw(ServiceError, 'there is no such client');
    }
  });
});
