/** Settings of flags and files, with all faults together. */
import { generateKeyPairSync } from 'node:crypto';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { expect } from 'chai';
import { GATE_FLAGS } from '../../gate/src/flags.js';
import { type RawSettings, readSettings, SettingsError } from '../../gate/src/settings.js';
import { SETTINGS_SHAPE } from '../../gate/src/settings-shape.js';
import { makeTemporaryFolder, type TemporaryFolder } from '../../scripts/system/temporary-folder.js';
import { createAuthority } from '../support/certificates.js';

describe('readSettings', () => {
  let folder: TemporaryFolder;
  let good: RawSettings;
  const path = (name: string): string => join(folder.path, name);

  before(async () => {
    folder = await makeTemporaryFolder();
    const { privateKey } = generateKeyPairSync('ed25519');
    await writeFile(path('client.pem'), privateKey.export({ type: 'pkcs8', format: 'pem' }));
    good = {
      issuer: 'https://issuer.test',
      auth: '127.0.0.1:50051',
      'client-id': 'greeter',
      'client-key': path('client.pem'),
      listen: '127.0.0.1:0',
      upstream: `unix:${path('greeter.sock')}`,
      descriptors: path('set.binpb'),
    };
  });
  after(() => folder.remove());

  it('has the same names as flags and in the file', () => {
    const names = Object.keys(SETTINGS_SHAPE.shape).filter((name) => name !== 'limits');
    expect(names.sort()).to.deep.equal(GATE_FLAGS.map(({ name }) => name).sort());
  });

  it('has safe defaults', () => {
    const settings = readSettings(good);
    expect(settings.identity).to.include({ mode: 'headers', token: 'strip', audience: 'greeter' });
    expect(settings.rules).to.include({ health: 'public', reflection: 'closed' });
    expect(settings.plaintext).to.equal('loopback');
    expect(settings.upstream?.exposed).to.equal('refuse');
    expect(settings.workers).to.equal(1);
    expect(readSettings({ ...good, 'http-check': '127.0.0.1:0' }).httpCheck).to.include({
      addressHeader: 'x-forwarded-for',
      certHeader: undefined,
    });
  });

  it('prefers flags to the file, and the file to what service add has written', async () => {
    await writeFile(
      path('greeter.env'),
      `ISSUER=https://env.test\nAUTH_ADDRESS=127.0.0.1:1\nCLIENT_ID=greeter\nCLIENT_KEY_FILE=${path('client.pem')}\nNATS_URL=nats://127.0.0.1:4222\nOTHER=1\n`,
    );
    await writeFile(
      path('gate.yaml'),
      `service: ${path('greeter.env')}\nauth: 127.0.0.1:2\nlisten: 127.0.0.1:0\nupstream: unix:/run/x.sock\nrules: rules.yaml\nworkers: 3\nlimits: {callsPerUser: 5}\npublic: [/a.B/C]\n`,
    );
    const settings = readSettings({ workers: '2' }, path('gate.yaml'));
    expect(settings.auth).to.include({
      issuer: 'https://env.test',
      address: '127.0.0.1:2',
      clientId: 'greeter',
    });
    expect(settings.auth.nats?.url).to.equal('nats://127.0.0.1:4222');
    expect(settings.workers).to.equal(2);
    expect(settings.limits).to.deep.equal({ callsPerUser: 5 });
    expect(settings.rules.publicMethods).to.deep.equal(['/a.B/C']);
  });

  it('tells all faults together, each by the name of its setting', async () => {
    await writeFile(path('bad.yaml'), 'lisen: x\nlimits: {callsPerUser: -1}\n');
    const faults = faultsOf(
      {
        listen: '0.0.0.0:50051',
        upstream: 'nonsense',
        identity: 'singed',
        workers: '0',
        public: 'Check',
        token: 'keep',
      },
      path('bad.yaml'),
    );
    const named = faults.map((fault) => fault.split(' ')[0]);
    expect(named).to.include.members([
      'lisen',
      'limits.callsPerUser',
      'upstream',
      'identity',
      'workers',
      'public',
      'token',
      'issuer',
      'auth',
      'client-id',
      'client-key',
      'descriptors',
      'tls-cert',
    ]);
  });

  it('demands a protected upstream, and private ports for whoever may ask about tokens', () => {
    const open = faultsOf({ ...good, upstream: '192.0.2.1:50051' });
    expect(open.join()).to.include('upstream can be called around the gate');
    expect(faultsOf({ ...good, upstream: '192.0.2.1:50051', 'upstream-exposed': 'warn' })).to.be.empty;
    expect(faultsOf({ ...good, 'ext-authz': '127.0.0.1:9000' }).join()).to.include(
      'ext-authz-client-ca is required',
    );
    expect(faultsOf({ ...good, 'ext-authz': 'unix:/run/authz.sock' })).to.be.empty;
    expect(faultsOf({ ...good, 'http-check': '0.0.0.0:9001' }).join()).to.include(
      'http-check must stay on this machine',
    );
  });

  it('rejects settings that would have no effect', () => {
    expect(faultsOf({ ...good, 'client-ca': path('ca.pem') }).join()).to.include('client-ca has no effect');
    expect(faultsOf({ ...good, 'identity-key': path('client.pem') }).join()).to.include(
      'identity-key has no effect',
    );
    expect(faultsOf({ ...good, identity: 'signed' }).join()).to.include('ops-listen is required');
  });

  it('reads certificates and keys before anything opens', async () => {
    const authority = await createAuthority(folder.path);
    const [one, other] = [await authority.issue(), await authority.issue()];
    const tls = { 'tls-cert': one.certFile, 'tls-key': one.keyFile };
    expect(faultsOf({ ...good, ...tls, listen: '0.0.0.0:0' })).to.be.empty;
    expect(faultsOf({ ...good, ...tls, 'tls-key': other.keyFile }).join()).to.include(
      'tls-key does not belong',
    );
    expect(faultsOf({ ...good, 'client-key': one.certFile }).join()).to.include(
      'client-key names no private key',
    );
    expect(faultsOf({ ...good, ...tls, 'client-auth': 'require' }).join()).to.include(
      'client-ca is required',
    );
  });

  it('repeats nothing of a file that cannot be read', async () => {
    await writeFile(path('secret.yaml'), 'nats: "nats://user:hunter2@x" : :\n');
    expect(faultsOf(good, path('secret.yaml')).join()).to.not.include('hunter2');
  });

  function faultsOf(flags: RawSettings, configFile?: string): readonly string[] {
    try {
      readSettings(flags, configFile);
      return [];
    } catch (error) {
      if (error instanceof SettingsError) return error.faults;
      throw error;
    }
  }
});
