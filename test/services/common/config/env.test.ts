/** Configuration from the environment. */

import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect } from 'chai';
import {
  base64urlBytes,
  CONFIGURATION_FILE_BYTES_MAX,
  ConfigurationError,
  fileContents,
  hostPort,
  hostPorts,
  isLoopback,
  logLevel,
  milliseconds,
  onOff,
  optional,
  parseEnvironment,
  parseHostPort,
  secret,
  serverTarget,
  text,
  url,
  withDefault,
} from '../../../../services/common/config/env.js';

function faultsOf(parse: () => unknown): Record<string, string> {
  try {
    parse();
  } catch (error) {
    if (error instanceof ConfigurationError) {
      return Object.fromEntries(error.faults.map(({ variable, problem }) => [variable, problem]));
    }
    throw error;
  }
  return {};
}

describe('environment', () => {
  let folder: string;
  before(async () => {
    folder = await mkdtemp(join(tmpdir(), 'portcullis-env-'));
  });
  after(() => rm(folder, { recursive: true }));

  async function file(name: string, contents: string): Promise<string> {
    const path = join(folder, name);
    await writeFile(path, contents);
    return path;
  }

  it('returns typed, frozen values', () => {
    const values = parseEnvironment(
      {
        DATABASE_URL: secret(url({ protocols: ['postgres:', 'postgresql:'] })),
        PORTCULLIS_LISTEN: hostPort(),
        PORTCULLIS_LEASE_MS: withDefault(milliseconds({ min: 100, max: 60_000 }), 5_000),
        PORTCULLIS_REFLECTION: withDefault(onOff(), false),
        PORTCULLIS_LOG_LEVEL: withDefault(logLevel(), 'info'),
        PORTCULLIS_AUTH_CA: optional(fileContents()),
        PORTCULLIS_INVENTORY_ADDRESS: hostPorts(),
      },
      {
        DATABASE_URL: 'postgresql://u:p@localhost/x',
        PORTCULLIS_LISTEN: '[::1]:50051',
        PORTCULLIS_LEASE_MS: '1500',
        PORTCULLIS_REFLECTION: 'on',
        PORTCULLIS_INVENTORY_ADDRESS: '127.0.0.1:50052, 127.0.0.1:50054',
        HOME: '/anywhere',
      },
    );
    expect(values).to.deep.equal({
      DATABASE_URL: 'postgresql://u:p@localhost/x',
      PORTCULLIS_LISTEN: '[::1]:50051',
      PORTCULLIS_LEASE_MS: 1500,
      PORTCULLIS_REFLECTION: true,
      PORTCULLIS_LOG_LEVEL: 'info',
      PORTCULLIS_AUTH_CA: undefined,
      PORTCULLIS_INVENTORY_ADDRESS: ['127.0.0.1:50052', '127.0.0.1:50054'],
    });
    expect(values).to.be.frozen;
  });

  it('reports all faults at once, each by the name of its variable', () => {
    const parse = () =>
      parseEnvironment(
        {
          DATABASE_URL: secret(url({ protocols: ['postgresql:'] })),
          PORTCULLIS_LISTEN: hostPort(),
          PORTCULLIS_REFLECTION: withDefault(onOff(), false),
          PORTCULLIS_LEASE_MS: milliseconds({ min: 100, max: 60_000 }),
          PORTCULLIS_LOG_LEVEL: logLevel(),
        },
        {
          PORTCULLIS_LISTEN: '50051',
          PORTCULLIS_REFLECTION: 'yes',
          PORTCULLIS_LEASE_MS: '1e3',
          PORTCULLIS_LOG_LEVEL: 'loud',
          PORTCULLIS_LISEN: 'x',
        },
        () => [{ variable: 'PORTCULLIS_AUTH_CA', problem: 'is needed beyond this machine' }],
      );
    expect(faultsOf(parse)).to.deep.equal({
      DATABASE_URL: 'is required',
      PORTCULLIS_LISTEN: 'must be HOST:PORT, such as 127.0.0.1:50051',
      PORTCULLIS_REFLECTION: 'must be on or off',
      PORTCULLIS_LEASE_MS: 'must be a whole number of milliseconds from 100 to 60000',
      PORTCULLIS_LOG_LEVEL: 'must be one of trace, debug, info, warn, error, fatal, silent',
      PORTCULLIS_LISEN: 'is not a variable of this service',
      PORTCULLIS_AUTH_CA: 'is needed beyond this machine',
    });
    expect(parse).to.throw(
      /^The configuration is not valid:\n {2}DATABASE_URL is required\n {2}PORTCULLIS_LISTEN must/,
    );
  });

  it('treats an empty variable as unset', () => {
    const shape = { PORTCULLIS_ISSUER: text(), PORTCULLIS_REFLECTION: withDefault(onOff(), true) };
    const parse = () => parseEnvironment(shape, { PORTCULLIS_ISSUER: '', PORTCULLIS_REFLECTION: '' });
    expect(faultsOf(parse)).to.deep.equal({ PORTCULLIS_ISSUER: 'is required' });
  });

  it('rejects every unknown variable with our prefix, and no other', () => {
    const parse = () => parseEnvironment({}, { PORTCULLIS_X: '1', PORTCULLIS_ISSUER_FILE: 'x', OTHER: '1' });
    expect(Object.keys(faultsOf(parse))).to.deep.equal(['PORTCULLIS_ISSUER_FILE', 'PORTCULLIS_X']);
  });

  it('keeps an issuer as it is written', () => {
    const shape = { PORTCULLIS_ISSUER: url({ protocols: ['http:', 'https:'] }) };
    const { PORTCULLIS_ISSUER } = parseEnvironment(shape, { PORTCULLIS_ISSUER: 'https://Auth.example' });
    expect(PORTCULLIS_ISSUER).to.equal('https://Auth.example');
    expect(
      faultsOf(() => parseEnvironment(shape, { PORTCULLIS_ISSUER: 'ftp://auth.example' })),
    ).to.have.all.keys('PORTCULLIS_ISSUER');
  });

  describe('secrets', () => {
    const shape = { PORTCULLIS_KEY_ENCRYPTION_KEY: secret(base64urlBytes(32)) };
    const key = Buffer.alloc(32, 7).toString('base64url');

    it('come from the variable or from the file that NAME_FILE names, without its last newline', async () => {
      const fromFile = { PORTCULLIS_KEY_ENCRYPTION_KEY_FILE: await file('key', `${key}\n`) };
      for (const env of [{ PORTCULLIS_KEY_ENCRYPTION_KEY: key }, fromFile]) {
        const values = parseEnvironment(shape, env);
        expect(values.PORTCULLIS_KEY_ENCRYPTION_KEY).to.deep.equal(Buffer.alloc(32, 7));
      }
    });

    it('are rejected when both are set', async () => {
      const env = {
        PORTCULLIS_KEY_ENCRYPTION_KEY: key,
        PORTCULLIS_KEY_ENCRYPTION_KEY_FILE: await file('both', key),
      };
      expect(faultsOf(() => parseEnvironment(shape, env))).to.deep.equal({
        PORTCULLIS_KEY_ENCRYPTION_KEY: 'and PORTCULLIS_KEY_ENCRYPTION_KEY_FILE are both set: keep one',
      });
    });

    it('are never repeated, not even when put where the file name belongs or quoted by a parser', async () => {
      const quoting = (given: string | undefined) => ({ problem: `does not like ${given}` });
      const all = { ...shape, PORTCULLIS_OTHER: secret({ parse: quoting, secret: true }) };
      const bad = [
        { PORTCULLIS_KEY_ENCRYPTION_KEY: 'hunter2', PORTCULLIS_OTHER: 'hunter2' },
        { PORTCULLIS_KEY_ENCRYPTION_KEY_FILE: 'hunter2', PORTCULLIS_OTHER_FILE: 'hunter2' },
        { PORTCULLIS_KEY_ENCRYPTION_KEY_FILE: await file('bad', 'hunter2'), PORTCULLIS_OTHER: 'hunter2' },
      ];
      for (const env of bad) {
        const faults = faultsOf(() => parseEnvironment(all, env));
        expect(Object.keys(faults)).to.have.length(2);
        expect(JSON.stringify(faults)).to.not.include('hunter2');
      }
    });

    it('must be canonical base64url of the right length', () => {
      for (const bad of [key.slice(1), `${key}=`, `${key.slice(0, -1)}d`, `${key} `, 'é'.repeat(43)]) {
        expect(faultsOf(() => parseEnvironment(shape, { PORTCULLIS_KEY_ENCRYPTION_KEY: bad }))).to.deep.equal(
          {
            PORTCULLIS_KEY_ENCRYPTION_KEY: 'must be 32 bytes in base64url',
          },
        );
      }
    });
  });

  it('reads the contents of a file, and reports faults without its name', async () => {
    const shape = { PORTCULLIS_CLIENT_KEY_FILE: fileContents() };
    const parse = (path: string) => parseEnvironment(shape, { PORTCULLIS_CLIENT_KEY_FILE: path });
    expect(parse(await file('pem', 'PEM\n')).PORTCULLIS_CLIENT_KEY_FILE).to.equal('PEM\n');
    const problems = {
      [join(folder, 'missing')]: 'names a file that cannot be read (ENOENT)',
      [folder]: 'names a file that cannot be read (EISDIR)',
      [await file('empty', '')]: 'names an empty file',
      [await file('long', 'x'.repeat(CONFIGURATION_FILE_BYTES_MAX + 1))]:
        'names a file of more than 65536 bytes',
    };
    for (const [path, problem] of Object.entries(problems)) {
      expect(faultsOf(() => parse(path))).to.deep.equal({ PORTCULLIS_CLIENT_KEY_FILE: problem });
    }
  });

  it('parses HOST:PORT strictly', () => {
    expect(parseHostPort('localhost:0')).to.deep.equal({ host: 'localhost', port: 0 });
    expect(parseHostPort('[::1]:65535')).to.deep.equal({ host: '::1', port: 65_535 });
    for (const bad of [
      '',
      ':1',
      'a',
      'a:',
      'a:65536',
      'a:-1',
      '::1:5',
      'a b:1',
      'http://a:1',
      'a:1 ',
      'a:1e3',
    ]) {
      expect(parseHostPort(bad), bad).to.equal(undefined);
    }
  });

  it('parses where a server is reached: a name, or IP addresses of one family', () => {
    const shape = { PORTCULLIS_AUTH_ADDRESS: serverTarget() };
    const parse = (given: string) =>
      parseEnvironment(shape, { PORTCULLIS_AUTH_ADDRESS: given }).PORTCULLIS_AUTH_ADDRESS;
    const addresses = ['auth.example:50051'];
    expect(parse('auth.example:50051')).to.deep.equal({ target: 'auth.example:50051', addresses });
    expect(parse('dns:///auth.example:50051')).to.deep.equal({
      target: 'dns:///auth.example:50051',
      addresses,
    });
    expect(parse('[::1]:1').target).to.equal('[::1]:1');
    expect(parse('10.0.0.1:1, 10.0.0.2:2')).to.deep.equal({
      target: 'ipv4:10.0.0.1:1,10.0.0.2:2',
      addresses: ['10.0.0.1:1', '10.0.0.2:2'],
    });
    expect(parse('[::1]:1,[::2]:2').target).to.equal('ipv6:[::1]:1,[::2]:2');
    for (const bad of ['a:1,b:2', '10.0.0.1:1,[::1]:1', '10.0.0.1:1,10.0.0.1:1', '10.0.0.1:1,', 'dns:///a']) {
      expect(faultsOf(() => parse(bad))['PORTCULLIS_AUTH_ADDRESS'], bad).to.match(
        /^must be HOST:PORT or dns:/,
      );
    }
  });

  it('knows which addresses stay on this machine', () => {
    for (const near of ['127.0.0.1:1', '127.9.9.9:1', 'localhost:1', 'LOCALHOST:1', '[::1]:1']) {
      expect(isLoopback(near), near).to.equal(true);
    }
    for (const far of [
      '10.0.0.1:1',
      '127.0.0.1.evil.example:1',
      'localhost.evil.example:1',
      '[::2]:1',
      'x',
    ]) {
      expect(isLoopback(far), far).to.equal(false);
    }
  });
});
