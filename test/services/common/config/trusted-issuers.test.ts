/** The configuration of other issuers: every fault is reported, and no secret is printed. */

import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { expect } from 'chai';
import { parseTrustedIssuers } from '../../../../services/common/config/trusted-issuers.js';
import { makeFolder } from '../../../support/folders.js';

const GOOD = {
  issuer: 'https://keycloak.example/realms/shop',
  jwks_url: 'https://keycloak.example/realms/shop/certs',
  algorithms: ['RS256'],
};
const OWN = 'https://auth.example';

function parse(json: unknown, service = 'inventory') {
  const text = typeof json === 'string' ? json : JSON.stringify(json);
  return parseTrustedIssuers({ PORTCULLIS_TRUSTED_ISSUERS: text, PORTCULLIS_ISSUER: OWN }, service);
}

describe('the configuration of other issuers', () => {
  it('is empty when the variable is unset', () => {
    expect(parseTrustedIssuers({}, 'inventory')).to.deep.equal({ issuers: [], faults: [] });
  });

  it("maps an issuer's claims, scopes and audiences to ours", () => {
    const { issuers, faults } = parse([
      {
        ...GOOD,
        types: ['JWT'],
        audiences: { inventory: 'inventory-api' },
        claims: { roles: ['realm_access', 'roles'], client_id: 'azp', session_id: 'sid' },
        scopes: { 'inv:read': 'inventory.read' },
        roles: { clerk: 'operator' },
        revocable: ['tenant', ['realm_access', 'groups']],
        services: { claim: ['ext', 'kind'], values: ['service'] },
        lifetime_max_seconds: 600,
      },
    ]);
    expect(faults).to.deep.equal([]);
    expect(issuers[0]).to.deep.include({
      issuer: GOOD.issuer,
      audience: 'inventory-api',
      keys: { jwksUrl: GOOD.jwks_url, jwksFile: undefined, algorithms: ['RS256'] },
      types: ['JWT'],
      scopes: { 'inv:read': 'inventory.read' },
      roles: { clerk: 'operator' },
      revocable: ['tenant', ['realm_access', 'groups']],
      services: { claim: ['ext', 'kind'], values: ['service'] },
      lifetimeMaxSeconds: 600,
    });
    expect(issuers[0]?.claims).to.include({ clientId: 'azp', sessionId: 'sid' });
    expect(parse([GOOD], 'payment').issuers[0]).to.include({ audience: undefined });
  });

  it('accepts a secret inline or from a file, if it is long enough', async () => {
    const folder = await makeFolder();
    const file = join(folder.path, 'secret');
    await writeFile(file, `${'s'.repeat(32)}\n`);
    for (const source of [{ legacy_secret: 's'.repeat(32) }, { legacy_secret_file: file }]) {
      const [issuer] = parse([{ issuer: 'https://legacy.example', ...source }]).issuers;
      expect(issuer?.keys).to.deep.equal({ legacySecret: Buffer.from('s'.repeat(32)) });
    }
    await folder.remove();
  });

  it('reports every fault with its position, and without the secret', () => {
    const secret = 'hunter2hunter2hunter2hunter2';
    const { jwks_url: _url, ...keyless } = GOOD;
    const bad: unknown[] = [
      'no JSON',
      {},
      [{}],
      [{ ...GOOD, issuer: OWN }],
      [GOOD, GOOD],
      [keyless],
      [{ ...GOOD, jwks_file: 'x' }],
      [{ ...GOOD, algorithms: undefined }],
      [{ ...GOOD, algorithms: ['HS256'] }],
      [{ ...GOOD, algorithms: ['none'] }],
      [{ ...GOOD, jwks_url: 'http://keycloak.example/certs' }],
      [{ ...GOOD, jwks_url: 'not a url' }],
      [{ ...GOOD, lifetime_max_seconds: 3601 }],
      [{ ...GOOD, lifetime_max_seconds: 0.5 }],
      [{ ...GOOD, typo: true }],
      [{ ...GOOD, scopes: { read: 'NOT A SCOPE' } }],
      [{ ...GOOD, claims: { roles: [] } }],
      [{ ...GOOD, revocable: 'tenant' }],
      [{ ...GOOD, revocable: [''] }],
      [{ ...GOOD, revocable: [[]] }],
      [{ ...GOOD, revocable: ['tenant', ['tenant']] }],
      [{ ...GOOD, revocable: [...'abcdefghi'] }],
      [{ ...GOOD, services: { claim: 'kind' } }],
      [{ ...GOOD, services: { claim: 'kind', values: [] } }],
      [{ ...GOOD, services: { claim: [], values: ['service'] } }],
      [{ ...GOOD, services: 'batch-job' }],
      [{ ...GOOD, legacy_secret: 's'.repeat(32) }],
      [{ issuer: 'https://legacy.example', legacy_secret: secret }],
      [{ issuer: 'https://legacy.example', legacy_secret: secret.repeat(2), algorithms: ['RS256'] }],
      [{ issuer: 'https://legacy.example', legacy_secret_file: '/nowhere/at/all' }],
      [{ issuer: 'https://legacy.example', legacy_secret: [secret] }],
    ];
    for (const json of bad) {
      const { issuers, faults } = parse(json);
      expect(issuers, JSON.stringify(json)).to.deep.equal([]);
      expect(faults, JSON.stringify(json)).to.not.deep.equal([]);
      for (const { variable, problem } of faults) {
        expect(variable).to.equal('PORTCULLIS_TRUSTED_ISSUERS');
        expect(problem).to.not.contain(secret);
      }
    }
    const two = parse([
      { ...GOOD, algorithms: ['none'] },
      { ...GOOD, jwks_url: 7 },
    ]);
    expect(two.faults).to.have.length(2);
  });
});
