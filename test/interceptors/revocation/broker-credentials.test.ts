/** Credentials for the broker are read completely or not at all, and a fault never repeats them. */

import { writeFile } from 'node:fs/promises';
import { expect } from 'chai';
import { nkeys } from 'nats';
import {
  BrokerCredentialsError,
  brokerCredentialFaults,
  readBrokerCredentials,
} from '../../../interceptors/src/revocation/broker-credentials.js';
import { makeTemporaryFolder } from '../../../scripts/system/temporary-folder.js';
import { credentialsOf, natsAccount, seedOf } from '../../support/nats-accounts.js';

const FILE_BYTES_MAX = 64 * 1024;
const NO_SEED = 'contains no seed of a user (SU…)';
const NO_JWT = 'contains no NATS USER JWT';
const OTHER_KEY = 'contains a seed that is not the key of its JWT';

describe('a file with credentials for the broker', () => {
  const user = nkeys.createUser();
  const seed = seedOf(user);
  const creds = credentialsOf(natsAccount());
  const ownSeed = /SU[A-Z2-7]{56}/.exec(creds)?.[0] ?? '';
  const jwt = /[\w-]+\.[\w-]+\.[\w-]+/.exec(creds)?.[0] ?? '';
  let folder: Awaited<ReturnType<typeof makeTemporaryFolder>>;
  let path: string;

  before(async () => {
    folder = await makeTemporaryFolder();
    path = `${folder.path}/credentials`;
  });
  after(() => folder.remove());

  async function problemsOf(kind: 'nkeyFile' | 'credsFile', text: string): Promise<string[]> {
    await writeFile(path, text);
    return brokerCredentialFaults({ [kind]: path }).map(({ file, problem }) => {
      expect(file).to.equal(kind);
      return problem;
    });
  }

  it('authenticates with the nkey whose seed it contains, wherever the seed stands', async () => {
    for (const text of [seed, `${seed}\n`, `# inventory\r\n${seed}\r\n`, `seed: "${seed}"`]) {
      expect(await problemsOf('nkeyFile', text), JSON.stringify(text)).to.deep.equal([]);
      const answer = readBrokerCredentials({ nkeyFile: path })?.('nonce');
      expect(answer).to.include({ nkey: user.getPublicKey() });
      expect(answer).to.have.property('sig').with.length.above(0);
    }
  });

  it('is rejected when it contains no complete seed of a user', async () => {
    const texts = [
      '',
      seed.slice(0, -1),
      `${seed}A`,
      `A${seed}`,
      seed.toLowerCase(),
      `${seed.slice(0, -1)}1`,
      // The checksum is wrong. The last two bits of the text are not part of it.
      `${seed.slice(0, -1)}${seed.endsWith('A') ? 'Q' : 'A'}`,
      seedOf(nkeys.createAccount()),
      user.getPublicKey(),
    ];
    for (const text of texts) {
      expect(await problemsOf('nkeyFile', text), text).to.deep.equal([NO_SEED]);
      expect(() => readBrokerCredentials({ nkeyFile: path }), text).to.throw(BrokerCredentialsError);
    }
  });

  it('authenticates with the JWT between its marks, whatever space surrounds it', async () => {
    const [begin, end] = ['BEGIN NATS USER JWT', 'END NATS USER JWT'];
    const texts = [
      creds,
      creds.replaceAll('\n', '\r\n'),
      creds.replaceAll('\n', '\n\n'),
      `---${begin}---${jwt}\n---${end}---\n${ownSeed}`,
      `---${begin}---\n${jwt} ---  ${end}---\n${ownSeed}`,
      `${ownSeed}\n-----${begin}-----\n${jwt}\n------${end}------`,
    ];
    for (const text of texts) {
      expect(await problemsOf('credsFile', text), text).to.deep.equal([]);
      const answer = readBrokerCredentials({ credsFile: path })?.('nonce');
      expect(answer).to.include({ jwt, nkey: nkeys.fromSeed(Buffer.from(ownSeed)).getPublicKey() });
      expect(answer).to.have.property('sig').with.length.above(0);
    }
  });

  it('is rejected without a complete JWT between its marks', async () => {
    const texts = [
      creds.replace('-----BEGIN NATS', '--BEGIN NATS'),
      creds.replace('JWT-----', 'JWT--'),
      creds.replace('------END NATS', '--END NATS'),
      creds.replace('END NATS USER JWT------', 'END NATS USER JWT--'),
      creds.replace(jwt, ''),
      creds.replace(jwt, jwt.slice(0, jwt.lastIndexOf('.'))),
      creds.replace(jwt, `${jwt}.x`),
      creds.replace(jwt, `${jwt} x`),
      creds.replace(jwt, `x ${jwt}`),
      creds.replace(jwt, jwt.replace('.', ' . ')),
    ];
    for (const text of texts) expect(await problemsOf('credsFile', text), text).to.deep.equal([NO_JWT]);
  });

  it('is rejected when its seed is missing, or is not the key that its JWT names', async () => {
    expect(await problemsOf('credsFile', creds.replace(ownSeed, ''))).to.deep.equal([NO_SEED]);
    expect(await problemsOf('credsFile', creds.replace(ownSeed, seed))).to.deep.equal([OTHER_KEY]);
    for (const payload of ['', 'null', '5', '"x"', '[]', '{}', '{"sub":null}', 'not JSON']) {
      const other = `x.${Buffer.from(payload).toString('base64url') || '-'}.x`;
      expect(await problemsOf('credsFile', creds.replace(jwt, other)), payload).to.deep.equal([OTHER_KEY]);
    }
  });

  it('may have 64 KiB, and is rejected above', async () => {
    const padding = '\n'.repeat(FILE_BYTES_MAX - seed.length);
    expect(await problemsOf('nkeyFile', seed + padding)).to.deep.equal([]);
    const tooLong = ['has more than 65536 bytes'];
    expect(await problemsOf('nkeyFile', `${seed}${padding}\n`)).to.deep.equal(tooLong);
    expect(await problemsOf('credsFile', creds + padding)).to.deep.equal(tooLong);
  });

  it('is not required: without one there are no credentials and no faults', () => {
    expect(readBrokerCredentials({})).to.equal(undefined);
    expect(brokerCredentialFaults({})).to.deep.equal([]);
  });

  it('has a fault of its own when two files are given', () => {
    const nowhere = `${folder.path}/nowhere`;
    const problem = 'cannot be read (ENOENT)';
    expect(brokerCredentialFaults({ nkeyFile: nowhere, credsFile: nowhere })).to.deep.equal([
      { file: 'nkeyFile', problem },
      { file: 'credsFile', problem },
    ]);
  });

  it('is not named in the error, because an operator may have put the seed itself in place of its path', () => {
    expect(() => readBrokerCredentials({ nkeyFile: seed }))
      .to.throw(BrokerCredentialsError, 'cannot be read (ENOENT)')
      .that.has.property('name', 'BrokerCredentialsError');
    expect(() => readBrokerCredentials({ credsFile: seed }))
      .to.throw()
      .with.property('message')
      .that.not.contains(seed);
  });
});
