/** Tests of what an update of a client compares, without a database. */

import { expect } from 'chai';
import { etagOf } from '../../../../services/auth/clients/update-client.js';
import type { Client } from '../../../../services/auth/records/clients.js';

const client: Client = {
  clientId: 'shop',
  generation: 1n,
  credentials: [{ credentialId: 'one', createTime: new Date(0), kind: 'secret', hash: 'a' }],
  audiences: ['auth'],
  scopes: ['auth.sync'],
  exchangeAudiences: ['inventory'],
  exchangeScopes: ['inventory.read'],
  certificateBound: false,
  disabled: false,
  createTime: new Date(1000),
};

describe('the etag of a client', () => {
  it('is another one after every change by an administrator', () => {
    const changes: Partial<Client>[] = [
      {},
      { credentials: [] },
      { credentials: [{ credentialId: 'two', createTime: new Date(0), kind: 'secret', hash: 'a' }] },
      { audiences: [] },
      { scopes: ['auth.exchange'] },
      { exchangeAudiences: [] },
      { exchangeScopes: [] },
      { exchangeScopes: undefined },
      { certificateBound: true },
      { disabled: true },
      { brokerKey: 'UA' },
      { brokerKey: 'UB' },
      { createTime: new Date(1001) },
    ];
    const etags = changes.map((change) => etagOf({ ...client, ...change }));
    expect(new Set(etags).size).to.equal(changes.length);
    for (const etag of etags) expect(etag).to.match(/^[\w-]{22}$/);
  });

  it('is the same for equal content, whatever the generation and the hash of a secret', () => {
    const credentials = client.credentials.map((each) => ({ ...each, hash: '' }));
    expect(etagOf({ ...client, generation: 2n, credentials })).to.equal(etagOf(client));
  });
});
