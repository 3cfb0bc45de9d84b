/** The configuration of payment. */
import { generateKeyPairSync } from 'node:crypto';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect } from 'chai';
import { ConfigurationError } from '../../../services/common/config/env.js';
import { parseConfig } from '../../../services/payment/config.js';

describe('the configuration of payment', () => {
  let folder: string;
  let good: Record<string, string>;

  before(async () => {
    folder = await mkdtemp(join(tmpdir(), 'payment-config-'));
    const { privateKey } = generateKeyPairSync('ed25519');
    await writeFile(join(folder, 'key.pem'), privateKey.export({ type: 'pkcs8', format: 'pem' }));
    await writeFile(join(folder, 'not-a-key.pem'), 'not a key');
    good = {
      DATABASE_URL: 'postgresql://payment@127.0.0.1:5432/portcullis_payment',
      NATS_URL: 'nats://127.0.0.1:4222',
      PORTCULLIS_ISSUER: 'http://127.0.0.1:51051',
      PORTCULLIS_AUTH_ADDRESS: '127.0.0.1:50051',
      PORTCULLIS_CLIENT_ID: 'payment',
      PORTCULLIS_CLIENT_KEY_FILE: join(folder, 'key.pem'),
      PORTCULLIS_INVENTORY_ADDRESS: '127.0.0.1:50052, 127.0.0.1:50054',
    };
  });
  after(() => rm(folder, { recursive: true }));

  function faultsOf(env: Record<string, string>): string[] {
    try {
      parseConfig(env);
    } catch (error) {
      if (error instanceof ConfigurationError) return error.faults.map(({ variable }) => variable).sort();
      throw error;
    }
    return [];
  }

  it('uses the variables that are set, and defaults for the others', () => {
    const config = parseConfig(good);
    expect(config).to.include({ listen: '127.0.0.1:50053', opsListen: '127.0.0.1:51053', drainMs: 10_000 });
    expect(config.inventoryAddresses).to.deep.equal(['127.0.0.1:50052', '127.0.0.1:50054']);
    expect(config.clientKey.asymmetricKeyType).to.equal('ed25519');
    expect(config).to.be.frozen;
  });

  it('reports all missing variables together', () => {
    expect(faultsOf({})).to.deep.equal([...Object.keys(good)].sort());
  });

  it('rejects an invalid client key and unknown variables', () => {
    const bad = {
      ...good,
      PORTCULLIS_CLIENT_KEY_FILE: join(folder, 'not-a-key.pem'),
      PORTCULLIS_INVENTORY_ADRESS: '127.0.0.1:1',
    };
    expect(faultsOf(bad)).to.deep.equal(['PORTCULLIS_CLIENT_KEY_FILE', 'PORTCULLIS_INVENTORY_ADRESS']);
  });

  it('rejects plaintext to services on other machines', () => {
    const far = {
      ...good,
      PORTCULLIS_AUTH_ADDRESS: 'auth.example:50051',
      PORTCULLIS_INVENTORY_ADDRESS: '127.0.0.1:50052,10.0.0.7:50052',
    };
    expect(faultsOf(far)).to.deep.equal(['PORTCULLIS_AUTH_CA', 'PORTCULLIS_INVENTORY_CA']);
  });
});
