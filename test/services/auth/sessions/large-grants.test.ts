/** Users whose roles grant more than fits into one token, against PostgreSQL. */

import { randomUUID } from 'node:crypto';
import { expect } from 'chai';
import { violatedFieldsOf } from '../../../support/outcomes.js';
import { DEMO_DOCUMENT } from '../demo-policy.js';
import { addUser, claimsOf, type FreshAuth, logIn, openFreshAuth } from '../instance.js';

const SCOPES_MAX = 64;
const CHARACTERS_MAX = 2048;
/** What the role of customers grants. */
const OWN = 'auth.self inventory.read inventory.reserve payment.pay payment.read';

describe('a user whose roles grant more than fits into one token', () => {
  let auth: FreshAuth;

  beforeEach(async () => {
    auth = await openFreshAuth();
  });
  afterEach(() => auth.close());

  const scopesIn = (token: string) => String(claimsOf(token)['scope']).split(' ');

  /** Another role grants scopes of these lengths. */
  async function widen(lengths: readonly number[]): Promise<readonly string[]> {
    const scopes = lengths.map((length, index) => `wide.${index}`.padEnd(length, 'x'));
    await auth.policy.apply({
      actor: 'olga',
      etag: '',
      dryRun: false,
      requestId: randomUUID(),
      reason: '',
      network: '192.0.2.7',
      document: {
        ...DEMO_DOCUMENT,
        services: [...DEMO_DOCUMENT.services, { audience: 'wide', description: '', clientIds: [], scopes }],
        roles: [...DEMO_DOCUMENT.roles, { role: 'wide', description: '', scopes }],
      },
    });
    return scopes;
  }

  it('by the number of scopes names a part at login', async () => {
    const rest = SCOPES_MAX - OWN.split(' ').length;
    await widen(new Array<number>(rest).fill(12));
    const user = await addUser(auth, ['customer', 'wide']);
    expect(scopesIn((await logIn(auth, user)).access.token)).to.have.length(SCOPES_MAX);
    const scopes = (await widen(new Array<number>(rest + 1).fill(12))).slice(0, 30);
    expect(await violatedFieldsOf(logIn(auth, user))).to.deep.equal(['scopes']);
    expect(scopesIn((await logIn(auth, user, { scopes })).access.token)).to.have.members(scopes);
  });

  it('by their length does the same', async () => {
    const lengths = new Array<number>(19).fill(100);
    const rest = CHARACTERS_MAX - OWN.length - lengths.length * 101 - 1;
    await widen([...lengths, rest]);
    const user = await addUser(auth, ['customer', 'wide']);
    expect(scopesIn((await logIn(auth, user)).access.token).join(' ')).to.have.length(CHARACTERS_MAX);
    const scopes = await widen([...lengths, rest + 1]);
    expect(await violatedFieldsOf(logIn(auth, user))).to.deep.equal(['scopes']);
    expect(scopesIn((await logIn(auth, user, { scopes })).access.token)).to.have.members([...scopes]);
  });
});
