/** The configuration of inventory: its variables, and the report of all faults at once. */

import { generateKeyPairSync } from 'node:crypto';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect } from 'chai';
import { ConfigurationError } from '../../../services/common/config/env.js';
import { parseConfig } from '../../../services/inventory/config.js';

describe('inventory configuration', () => {
  let folder: string;
  let good: Record<string, string>;

  before(() => {
    folder = mkdtempSync(join(tmpdir(), 'inventory-config-'));
    const keyFile = join(folder, 'key.pem');
    const { privateKey } = generateKeyPairSync('ed25519');
    writeFileSync(keyFile, privateKey.export({ format: 'pem', type: 'pkcs8' }));
    writeFileSync(join(folder, 'public.pem'), 'not a key');
    good = {
      DATABASE_URL: 'postgresql://user:password@db/portcullis_inventory',
      NATS_URL: 'nats://127.0.0.1:4222',
      PORTCULLIS_ISSUER: 'https://auth.example',
      PORTCULLIS_AUTH_ADDRESS: '127.0.0.1:50051',
      PORTCULLIS_CLIENT_ID: 'inventory',
      PORTCULLIS_CLIENT_KEY_FILE: keyFile,
    };
  });
  after(() => rmSync(folder, { recursive: true }));

  function faultsOf(env: Record<string, string>): string[] {
    try {
      parseConfig(env);
    } catch (error) {
      if (error instanceof ConfigurationError) return error.faults.map(({ variable }) => variable).sort();
    }
    throw new Error('expected a ConfigurationError');
  }

  it('requires only variables without a safe default', () => {
    const config = parseConfig(good);
    expect(config).to.include({
      listen: '127.0.0.1:50052',
      opsListen: '127.0.0.1:51052',
      reflection: false,
      drainMs: 10_000,
      authCaFile: undefined,
    });
    expect(config.clientKey.asymmetricKeyType).to.equal('ed25519');
    expect(Object.isFrozen(config)).to.equal(true);
  });

  it('reports all missing variables together', () => {
    expect(faultsOf({ PORTCULLIS_LISTEN: 'here' })).to.deep.equal([
      'DATABASE_URL',
      'NATS_URL',
      'PORTCULLIS_AUTH_ADDRESS',
      'PORTCULLIS_CLIENT_ID',
      'PORTCULLIS_CLIENT_KEY_FILE',
      'PORTCULLIS_ISSUER',
      'PORTCULLIS_LISTEN',
    ]);
  });

  it('rejects plaintext to auth on another machine, unless it is allowed', () => {
    const elsewhere = { ...good, PORTCULLIS_AUTH_ADDRESS: 'auth.example:443' };
    expect(faultsOf(elsewhere)).to.deep.equal(['PORTCULLIS_AUTH_CA']);
    const noAuthority = { ...elsewhere, PORTCULLIS_AUTH_CA: join(folder, 'public.pem') };
    expect(faultsOf(noAuthority)).to.deep.equal(['PORTCULLIS_AUTH_CA']);
    expect(parseConfig({ ...elsewhere, PORTCULLIS_PLAINTEXT: 'allow' }).tls.plaintext).to.equal('allow');
    const oneElsewhere = { ...good, PORTCULLIS_AUTH_ADDRESS: '127.0.0.1:50051,10.0.0.7:50051' };
    expect(faultsOf(oneElsewhere)).to.deep.equal(['PORTCULLIS_AUTH_CA']);
  });

  it('rejects an invalid client key and unknown variables', () => {
    const bad = { ...good, PORTCULLIS_CLIENT_KEY_FILE: join(folder, 'public.pem'), PORTCULLIS_LISTNE: 'x' };
    expect(faultsOf(bad)).to.deep.equal(['PORTCULLIS_CLIENT_KEY_FILE', 'PORTCULLIS_LISTNE']);
  });
});
