/** The configuration of TLS, and the settings that it rejects. */

import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { expect } from 'chai';
import { makeTemporaryFolder } from '../../../../scripts/system/temporary-folder.js';
import {
  ConfigurationError,
  hostPort,
  optional,
  parseEnvironment,
  text,
} from '../../../../services/common/config/env.js';
import { TLS_VARIABLES, tlsFaults, tlsSettingsOf } from '../../../../services/common/tls/tls-config.js';
import { createAuthority, type Identity } from '../../../support/certificates.js';

const SETUP_TIMEOUT_MS = 60_000;
const SHAPE = {
  NATS_URL: optional(text()),
  PORTCULLIS_LISTEN: hostPort(),
  PORTCULLIS_OPS_LISTEN: hostPort(),
  PORTCULLIS_PEER: optional(hostPort()),
  PORTCULLIS_PEER_CA: optional(text()),
  ...TLS_VARIABLES,
};
const LOCAL = { PORTCULLIS_LISTEN: '127.0.0.1:0', PORTCULLIS_OPS_LISTEN: 'localhost:0' };

function parse(env: NodeJS.ProcessEnv) {
  return tlsSettingsOf(
    parseEnvironment(SHAPE, env, (good) => {
      const addresses = [good.PORTCULLIS_PEER ?? []].flat();
      const caFile = good.PORTCULLIS_PEER_CA;
      const names = { caVariable: 'PORTCULLIS_PEER_CA', addressVariable: 'PORTCULLIS_PEER' };
      return tlsFaults(good, [{ ...names, caFile, addresses }]);
    }),
  );
}

function faultsOf(env: NodeJS.ProcessEnv): Record<string, string> {
  try {
    parse(env);
    return {};
  } catch (error) {
    if (!(error instanceof ConfigurationError)) throw error;
    return Object.fromEntries(error.faults.map(({ variable, problem }) => [variable.slice(11), problem]));
  }
}

describe('configuration of TLS', () => {
  let folder: Awaited<ReturnType<typeof makeTemporaryFolder>>;
  let ca: string;
  let own: Identity;
  let other: Identity;
  let expired: Identity;

  before(async function () {
    this.timeout(SETUP_TIMEOUT_MS);
    folder = await makeTemporaryFolder();
    const authority = await createAuthority(folder.path);
    ca = authority.certFile;
    own = await authority.issue();
    other = await authority.issue();
    expired = await authority.issue({ days: -1 });
  });
  after(() => folder?.remove());

  const pair = ({ certFile, keyFile }: Identity): NodeJS.ProcessEnv => ({
    PORTCULLIS_TLS_CERT_FILE: certFile,
    PORTCULLIS_TLS_KEY_FILE: keyFile,
  });

  it('is plaintext on loopback by default', () => {
    expect(parse(LOCAL)).to.deep.equal({
      listener: undefined,
      client: undefined,
      natsCaFile: undefined,
      plaintext: 'loopback',
    });
  });

  it('rejects a plaintext listener for other machines, unless it is allowed', () => {
    for (const address of ['0.0.0.0:50051', '[::]:50051', '10.0.0.1:50051', 'auth.example:50051']) {
      for (const variable of ['PORTCULLIS_LISTEN', 'PORTCULLIS_OPS_LISTEN']) {
        const open = { ...LOCAL, [variable]: address };
        const faults = faultsOf(open);
        expect(Object.keys(faults), `${variable} ${address}`).to.deep.equal(['TLS_CERT_FILE']);
        expect(faults['TLS_CERT_FILE']).to.include(`unless ${variable} stays`);
        expect(faultsOf({ ...open, PORTCULLIS_PLAINTEXT: 'allow' })).to.deep.equal({});
        expect(faultsOf({ ...open, ...pair(own) })).to.deep.equal({});
      }
    }
  });

  it('rejects plaintext calls to another machine, unless they are allowed', () => {
    const far = { ...LOCAL, PORTCULLIS_PEER: 'peer.example:1' };
    expect(Object.keys(faultsOf(far))).to.deep.equal(['PEER_CA']);
    expect(faultsOf({ ...far, PORTCULLIS_PLAINTEXT: 'allow' })).to.deep.equal({});
    expect(faultsOf({ ...far, PORTCULLIS_PEER_CA: ca })).to.deep.equal({});
    expect(faultsOf({ ...far, PORTCULLIS_PEER: '127.0.0.1:1' })).to.deep.equal({});
  });

  it('requires certificate and key together, matching and valid', () => {
    const { certFile, keyFile } = own;
    expect(faultsOf({ ...LOCAL, PORTCULLIS_TLS_CERT_FILE: certFile })).to.have.keys('TLS_KEY_FILE');
    expect(faultsOf({ ...LOCAL, PORTCULLIS_TLS_KEY_FILE: keyFile })).to.have.keys('TLS_CERT_FILE');
    expect(faultsOf({ ...LOCAL, ...pair({ certFile, keyFile: other.keyFile }) })).to.have.keys(
      'TLS_KEY_FILE',
    );
    expect(faultsOf({ ...LOCAL, ...pair(expired) })['TLS_CERT_FILE']).to.match(/expired/);
    const missing = { certFile: join(folder.path, 'none'), keyFile: folder.path };
    expect(faultsOf({ ...LOCAL, ...pair(missing) })).to.deep.equal({
      TLS_CERT_FILE: 'names a file that cannot be read (ENOENT)',
      TLS_KEY_FILE: 'names a file that cannot be read (EISDIR)',
    });
    const client = {
      PORTCULLIS_TLS_CLIENT_CERT_FILE: certFile,
      PORTCULLIS_TLS_CLIENT_KEY_FILE: other.keyFile,
    };
    expect(faultsOf({ ...LOCAL, ...client })).to.have.keys('TLS_CLIENT_KEY_FILE');
  });

  it('checks the certificates of callers only against configured authorities', async () => {
    const on = { ...LOCAL, ...pair(own), PORTCULLIS_TLS_CLIENT_AUTH: 'required' };
    expect(faultsOf(on)).to.have.keys('TLS_CLIENT_CA_FILE');
    expect(faultsOf({ ...on, PORTCULLIS_TLS_CLIENT_CA_FILE: ca })).to.deep.equal({});
    const off = { ...on, PORTCULLIS_TLS_CLIENT_AUTH: 'off', PORTCULLIS_TLS_CLIENT_CA_FILE: ca };
    expect(faultsOf(off)['TLS_CLIENT_CA_FILE']).to.match(/no effect/);
    const plain = { ...LOCAL, PORTCULLIS_TLS_CLIENT_AUTH: 'required', PORTCULLIS_TLS_CLIENT_CA_FILE: ca };
    expect(faultsOf(plain)).to.have.keys('TLS_CLIENT_AUTH');
    const empty = join(folder.path, 'empty.pem');
    await writeFile(empty, '# no certificate\n');
    expect(faultsOf({ ...on, PORTCULLIS_TLS_CLIENT_CA_FILE: empty })).to.have.keys('TLS_CLIENT_CA_FILE');
  });

  it('rejects an authority for a broker without TLS', () => {
    const given = { ...LOCAL, PORTCULLIS_NATS_CA: ca };
    expect(faultsOf({ ...given, NATS_URL: 'nats://broker:4222' })).to.have.keys('NATS_CA');
    expect(faultsOf({ ...given, NATS_URL: 'nats://one:1, tls://two:2' })).to.deep.equal({});
    expect(parse({ ...given, NATS_URL: 'tls://broker:4222' }).natsCaFile).to.equal(ca);
  });
});
