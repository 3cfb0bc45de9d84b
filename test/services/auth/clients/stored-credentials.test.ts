/** Tests of the credentials of clients as they are stored. */

import { createPublicKey, generateKeyPairSync } from 'node:crypto';
import { expect } from 'chai';
import {
  CLIENT_KEYS_MAX,
  storedCredential,
  usableKeysOf,
  withCredential,
  withoutSecretHashes,
} from '../../../../services/auth/clients/stored-credentials.js';
import type { Client, StoredCredential } from '../../../../services/auth/records/clients.js';
import { codeOf } from '../../../support/outcomes.js';

const createTime = new Date(1000);
const newPem = (): string =>
  generateKeyPairSync('ed25519').publicKey.export({ type: 'spki', format: 'pem' }).toString();
const key = (pem: string = newPem()): StoredCredential => ({
  credentialId: pem,
  createTime,
  kind: 'public-key',
  pem,
});
const secret = (credentialId: string): StoredCredential => ({
  credentialId,
  createTime,
  kind: 'secret',
  hash: 'the hash',
});
const clientWith = (...credentials: StoredCredential[]): Client => ({
  clientId: 'shop',
  generation: 1n,
  credentials,
  audiences: [],
  scopes: [],
  exchangeAudiences: [],
  exchangeScopes: undefined,
  certificateBound: false,
  disabled: false,
  createTime,
});

describe('the stored credentials of a client', () => {
  it('have ids of their own, the key itself, and the hash of a secret', async () => {
    const passwords = { hash: async (text: string) => `hash of ${text}` };
    const pem = newPem();
    const one = await storedCredential(passwords, { kind: 'public-key', pem });
    const two = await storedCredential(passwords, { kind: 'secret', secret: 'the secret' });
    expect(one).to.deep.equal({ credentialId: one.credentialId, kind: 'public-key', pem });
    expect(two).to.deep.equal({ credentialId: two.credentialId, kind: 'secret', hash: 'hash of the secret' });
    expect(one.credentialId).to.not.equal(two.credentialId);
  });

  it('are at most eight keys and two secrets, each counted for itself', async () => {
    expect(CLIENT_KEYS_MAX).to.equal(8);
    const secrets = [secret('a'), secret('b')];
    const keys = Array.from({ length: 8 }, () => key());
    const added = [key(), secret('c')] as const;
    expect(await withCredential(clientWith(...secrets, ...keys.slice(1)), added[0])).to.deep.equal([
      ...secrets,
      ...keys.slice(1),
      added[0],
    ]);
    expect(await withCredential(clientWith(...secrets.slice(1), ...keys), added[1])).to.deep.equal([
      ...secrets.slice(1),
      ...keys,
      added[1],
    ]);
    for (const credential of added) {
      expect(await codeOf(withCredential(clientWith(...secrets, ...keys), credential))).to.equal(
        'TOO_MANY_CREDENTIALS',
      );
    }
  });

  it('contain no key twice, whatever its spelling, but as many equal hashes as there are', async () => {
    const pem = newPem();
    const spelled = createPublicKey(pem).export({ type: 'spki', format: 'pem' }).toString().trim();
    expect(await codeOf(withCredential(clientWith(key(), key(pem)), key(`\n${spelled}\n\n`)))).to.equal(
      'ALREADY_EXISTS',
    );
    expect(await withCredential(clientWith(secret('a')), secret('b'))).to.have.length(2);
    // A text that is no key any more equals nothing, not even itself.
    expect(await withCredential(clientWith(key('none')), key('none'))).to.have.length(2);
    expect(await withCredential(clientWith(key('none')), key(pem))).to.have.length(2);
    expect(await withCredential(clientWith(key(pem)), key('none'))).to.have.length(2);
  });

  it('verify with the keys that are good, the newest first', async () => {
    const [older, newer] = [key(), key()];
    const usable: StoredCredential[] = [];
    for await (const { key: found, credential } of usableKeysOf(
      clientWith(older, secret('a'), key('none'), newer),
    )) {
      usable.push(credential);
      expect(found.algorithms).to.include('EdDSA');
    }
    expect(usable).to.deep.equal([newer, older]);
  });

  it('are returned without the hashes of secrets', () => {
    const one = key();
    const client = clientWith(one, secret('a'));
    expect(withoutSecretHashes(client)).to.deep.equal({
      ...client,
      credentials: [one, { ...secret('a'), hash: '' }],
    });
  });
});
