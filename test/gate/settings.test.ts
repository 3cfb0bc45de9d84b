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
    const onlyInFile = ['limits', 'trusted-issuers'];
    const names = Object.keys(SETTINGS_SHAPE.shape).filter((name) => !onlyInFile.includes(name));
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

  it('names what was probably meant by a name that does not exist', async () => {
    await writeFile(
      path('misspelt.yaml'),
      [
        'lisen: 127.0.0.1:1',
        'indentity: off',
        'tls_cert: x',
        'nonsense: 1',
        'limits: {calsPerUser: 5, callsperservice: 6, publicCalls: -1, streams: 7}',
        'trusted-issuers:',
        '  - issuer: https://other.test',
        '    keys: {jwks: https://other.test/jwks, algorithms: [HS256]}',
        '    claims: {scope: scp}',
        '    lifeTimeMax: 1',
      ].join('\n'),
    );
    const faults = faultsOf({ ...good, identity: 'singed' }, path('misspelt.yaml'));
    expect(faults).to.include.members([
      'lisen is no setting: did you mean listen?',
      'indentity is no setting: did you mean identity?',
      'tls_cert is no setting: did you mean tls-cert?',
      'nonsense is no setting',
      'limits.calsPerUser is no limit: did you mean callsPerUser?',
      'limits.callsperservice is no limit: did you mean callsPerService?',
      'limits.publicCalls must be a number above 0',
      'limits.streams is no limit: did you mean streamsPerUser?',
      'identity must be headers, signed or off: did you mean signed?',
      'trusted-issuers.0.keys.jwks is no option of a trusted issuer: did you mean jwksUrl?',
      'trusted-issuers.0.keys.algorithms.0 must be EdDSA, ES256, RS256 or PS256: did you mean ES256?',
      'trusted-issuers.0.claims.scope is no option of a trusted issuer: did you mean scopes?',
      'trusted-issuers.0.lifeTimeMax is no option of a trusted issuer: did you mean lifetimeMaxSeconds?',
    ]);
  });

  it('says in plain words what a value must be, and nothing of what it is', async () => {
    await writeFile(
      path('kinds.yaml'),
      [
        'nats: [1]',
        'workers: many',
        'drain-seconds: 1.5',
        'tls-key: 7',
        'public: {a: b}',
        'limits: none',
        'trusted-issuers: {issuer: hunter2}',
      ].join('\n'),
    );
    const faults = faultsOf({ ...good, upstream: 'hunter2:' }, path('kinds.yaml'));
    expect(faults).to.include.members([
      'nats must be text, got a list',
      'workers must be a whole number',
      'drain-seconds must be a whole number from 0 to 600',
      'tls-key must be text, got a number',
      'public must be a list of paths',
      'limits must be a table, got text',
      'trusted-issuers must be a list, got a table',
    ]);
    expect(faults.join('\n')).to.not.match(
      /Invalid|Unrecognized|expected (?:string|number|array|object)|pattern/,
    );
  });

  it('says in which line of a file the fault is', async () => {
    for (const [name, content, fault] of [
      ['twice.yaml', 'auth: a\nlisten: b\nauth: c\n', 'in line 3: a name stands there twice'],
      ['open.yaml', 'auth: a\nlimits: {\n', 'a bracket before it is open'],
      ['tabs.yaml', 'limits:\n\tcallsPerUser: 1\n', 'in line 2: '],
      ['list.yaml', '- auth\n', 'must be a table of settings'],
    ] as const) {
      await writeFile(path(name), content);
      expect(faultsOf(good, path(name)).join('\n'), name)
        .to.include(`config ${path(name)} `)
        .and.include(fault);
    }
  });

  it('reads other issuers by the names of the library, and a limit that is switched off', async () => {
    await writeFile(path('legacy.txt'), `${'s'.repeat(40)}\n`);
    await writeFile(
      path('issuers.yaml'),
      [
        'limits: {callsPerUser: .inf}',
        'trusted-issuers:',
        '  - issuer: https://other.test',
        '    keys: {jwksUrl: https://other.test/jwks, algorithms: [RS256]}',
        '    scopes: {read: greeter.read}',
        '  - issuer: https://legacy.test',
        `    keys: {legacySecretFile: ${path('legacy.txt')}}`,
      ].join('\n'),
    );
    const { trustedIssuers, limits, mode } = readSettings({ ...good, mode: 'observe' }, path('issuers.yaml'));
    expect(trustedIssuers.map(({ issuer }) => issuer)).to.deep.equal([
      'https://other.test',
      'https://legacy.test',
    ]);
    expect(trustedIssuers[1]?.keys).to.deep.equal({ legacySecret: Buffer.from('s'.repeat(40)) });
    expect([limits, mode]).to.deep.equal([{ callsPerUser: Number.POSITIVE_INFINITY }, 'observe']);
    await writeFile(
      path('issuers.yaml'),
      [
        'trusted-issuers:',
        '  - {issuer: https://issuer.test, keys: {jwksUrl: http://192.0.2.1/jwks, algorithms: [RS256]}}',
        '  - {issuer: https://a.test, keys: {algorithms: [RS256]}}',
        '  - {issuer: https://b.test, keys: {legacySecretFile: /none}}',
      ].join('\n'),
    );
    expect(faultsOf(good, path('issuers.yaml'))).to.deep.equal([
      'trusted-issuers.1.keys must have one of jwksUrl, jwksFile and legacySecretFile',
      'trusted-issuers.2.keys legacySecretFile cannot be read (ENOENT): /none',
    ]);
  });

  it('names the settings of files that cannot be used, also when another key is wrong', async () => {
    const faults = faultsOf({
      ...good,
      'client-key': path('none.pem'),
      'client-auth': 'request',
      'client-ca': path('none-ca.pem'),
      'tls-cert': path('none.pem'),
      'tls-key': path('none.pem'),
    });
    expect(faults.map((fault) => fault.split(' ')[0])).to.have.members([
      'client-key',
      'tls-cert',
      'tls-key',
      'client-ca',
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
