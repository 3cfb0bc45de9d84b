/** Tests of what an administrator's changes of a client leave in the log and in the record, against PostgreSQL. */

import { expect } from 'chai';
import { codeOf } from '../../../support/outcomes.js';
import { addClient, entriesOf, type FreshAuth, openFreshAuth } from '../instance.js';

const SECRET = { kind: 'secret', secret: 'x'.repeat(40) } as const;

describe('a change of a client', () => {
  let auth: FreshAuth;

  before(async () => {
    auth = await openFreshAuth();
  });
  after(() => auth.close());

  type Change = (by: {
    readonly actor: string;
    readonly clientId: string;
    readonly reason: string;
    readonly requestId: string;
  }) => Promise<unknown>;
  const rights = {
    audiences: [],
    scopes: [],
    exchangeAudiences: [],
    exchangeScopes: [],
    certificateBound: false,
  };
  const removal = { credentialId: 'first' };
  const changes: readonly [string, Change, object, string | undefined][] = [
    ['client-disabled', (by) => auth.clients.disable(by), {}, 'client disabled'],
    ['client-deleted', (by) => auth.clients.delete(by), {}, 'client deleted'],
    [
      'client-updated',
      (by) => auth.clients.update({ ...by, rights, updateMask: ['*'], etag: '' }),
      {
        fields: [
          'audiences',
          'scopes',
          'exchangeAudiences',
          'exchangeScopes',
          'certificateBound',
          'brokerKey',
        ],
        revoked: true,
      },
      'client updated',
    ],
    [
      'client-updated',
      (by) => auth.clients.update({ ...by, rights, updateMask: ['certificate_bound'], etag: '' }),
      { fields: ['certificateBound'], revoked: false },
      undefined,
    ],
    [
      'client-credential-removed',
      (by) => auth.clients.removeCredential({ ...by, ...removal, revokeTokens: true }),
      { credentialId: 'first', credential: 'public-key', revoked: true },
      'client credential removed',
    ],
    [
      'client-credential-removed',
      (by) => auth.clients.removeCredential({ ...by, ...removal, revokeTokens: false }),
      { credentialId: 'first', credential: 'public-key', revoked: false },
      undefined,
    ],
    ['client-enabled', (by) => auth.clients.enable(by), {}, undefined],
  ];

  for (const [type, change, details, revocation] of changes) {
    const what = revocation === undefined ? 'revokes nothing' : 'revokes its tokens';
    it(`that is recorded as ${type} ${what}, for the reason given or its own`, async () => {
      for (const reason of ['', 'leaked']) {
        const { clientId } = await addClient(auth);
        await auth.clients.addCredential({
          actor: 'setup',
          clientId,
          credential: SECRET,
          requestId: clientId,
        });
        const before = (await entriesOf(auth)).length;
        await change({ actor: 'admin', clientId, reason, requestId: '' });
        const entries = (await entriesOf(auth)).slice(before);
        const key = Buffer.from(clientId).toString('hex');
        expect(entries).to.deep.equal(
          revocation === undefined
            ? []
            : [{ kind: 'CLIENT', key, reason: reason || revocation, actor: 'admin' }],
        );
        const { rows } = await auth.database.query<object>(
          `SELECT type, actor, reason, details - 'requestId' AS details, network FROM security_events
           WHERE subject = jsonb_build_object('clientId', $1::text) AND actor = 'admin'`,
          [clientId],
        );
        const recorded = type === 'client-enabled' ? '' : reason;
        expect(rows).to.deep.equal([{ type, actor: 'admin', reason: recorded, details, network: '' }]);
      }
    });
  }

  it('that creates it or adds a credential is recorded without a reason', async () => {
    const clientId = 'created';
    const by = { actor: 'admin', clientId, requestId: 'id' };
    await auth.clients.create({ ...by, ...rights, credential: SECRET });
    const { credentialId } = await auth.clients.addCredential({ ...by, credential: SECRET });
    const { rows } = await auth.database.query<object>(
      `SELECT type, actor, reason, details - 'requestId' AS details FROM security_events
       WHERE subject->>'clientId' = $1 ORDER BY event_time`,
      [clientId],
    );
    const common = { actor: 'admin', reason: '' };
    expect(rows).to.deep.equal([
      { ...common, type: 'client-created', details: {} },
      { ...common, type: 'client-credential-added', details: { credentialId, credential: 'secret' } },
    ]);
  });

  it('of a client that does not exist fails, and so does one of the logins', async () => {
    for (const [, change] of changes) {
      expect(
        await codeOf(change({ actor: 'admin', clientId: 'nobody', reason: '', requestId: '' })),
      ).to.equal('NOT_FOUND');
    }
    for (const [type, change] of changes) {
      if (type === 'client-enabled') continue;
      const outcome = change({ actor: 'admin', clientId: 'direct', reason: '', requestId: '' });
      expect(await codeOf(outcome)).to.equal('FIELD_INVALID');
    }
  });
});
