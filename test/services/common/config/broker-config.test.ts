/** The settings of the connection to the broker. */

import { writeFile } from 'node:fs/promises';
import { expect } from 'chai';
import { nkeys } from 'nats';
import { makeTemporaryFolder } from '../../../../scripts/system/temporary-folder.js';
import {
  brokerConfigFaults,
  brokerCredentialsOf,
  brokerVariables,
} from '../../../../services/common/config/broker-config.js';
import { ConfigurationError, parseEnvironment } from '../../../../services/common/config/env.js';
import { credentialsOf, natsAccount, seedOf } from '../../../support/nats-accounts.js';

const NKEY = 'PORTCULLIS_NATS_NKEY_FILE';
const CREDS = 'PORTCULLIS_NATS_CREDS_FILE';

describe('the settings of the broker', () => {
  let folder: Awaited<ReturnType<typeof makeTemporaryFolder>>;
  before(async () => {
    folder = await makeTemporaryFolder();
  });
  after(() => folder.remove());

  function parse(env: Record<string, string>) {
    const given = { NATS_URL: 'nats://127.0.0.1:4222', ...env };
    return brokerCredentialsOf(parseEnvironment(brokerVariables('optional'), given, brokerConfigFaults));
  }
  function faultsOf(env: Record<string, string>): string[] {
    try {
      parse(env);
    } catch (error) {
      if (error instanceof ConfigurationError) {
        return error.faults.map(({ variable, problem }) => `${variable} ${problem}`);
      }
      throw error;
    }
    return [];
  }
  async function file(name: string, contents: string): Promise<string> {
    const path = `${folder.path}/${name}`;
    await writeFile(path, contents);
    return path;
  }

  it('name a file with an nkey, or with credentials', async () => {
    const nkeyFile = await file('user.nk', `${seedOf(nkeys.createUser())}\n`);
    expect(parse({ [NKEY]: nkeyFile })).to.deep.equal({ nkeyFile, credsFile: undefined });
    const credsFile = await file('user.creds', credentialsOf(natsAccount()).replaceAll('\n', '\r\n'));
    expect(parse({ [CREDS]: credsFile })).to.deep.equal({ nkeyFile: undefined, credsFile });
  });

  it('are refused by name with a file that is missing or contains something else', async () => {
    const seed = seedOf(nkeys.createUser());
    const missing = `${folder.path}/missing`;
    expect(faultsOf({ [NKEY]: missing })).to.deep.equal([
      `${NKEY} names a file that cannot be read (ENOENT)`,
    ]);
    const noSeed = [`${NKEY} names a file that contains no seed of a user (SU…)`];
    const wrong = `${seed.slice(0, -1)}${seed.endsWith('A') ? 'Q' : 'A'}`;
    for (const text of ['', 'x', wrong, seedOf(nkeys.createAccount()), nkeys.createUser().getPublicKey()]) {
      expect(faultsOf({ [NKEY]: await file('bad.nk', text) }), text).to.deep.equal(noSeed);
    }
    const creds = credentialsOf(natsAccount());
    const own = /SU[A-Z2-7]{56}/.exec(creds)?.[0] ?? '';
    expect(faultsOf({ [CREDS]: await file('1.creds', seed) })).to.deep.equal([
      `${CREDS} names a file that contains no NATS USER JWT`,
    ]);
    expect(faultsOf({ [CREDS]: await file('2.creds', creds.replace(own, '')) })).to.deep.equal([
      `${CREDS} names a file that contains no seed of a user (SU…)`,
    ]);
    expect(faultsOf({ [CREDS]: await file('3.creds', creds.replace(own, seed)) })).to.deep.equal([
      `${CREDS} names a file that contains a seed that is not the key of its JWT`,
    ]);
    expect(faultsOf({ [CREDS]: await file('4.creds', ' '.repeat(70_000)) })).to.deep.equal([
      `${CREDS} names a file that has more than 65536 bytes`,
    ]);
  });

  it('are refused with credentials that are given twice, or without a broker', async () => {
    const nkeyFile = await file('user.nk', seedOf(nkeys.createUser()));
    const credsFile = await file('user.creds', credentialsOf(natsAccount()));
    expect(faultsOf({ [NKEY]: nkeyFile, [CREDS]: credsFile })).to.deep.equal([
      `${CREDS} and ${NKEY} are both set: keep one`,
    ]);
    expect(faultsOf({ [NKEY]: nkeyFile, NATS_URL: 'nats://u:p@127.0.0.1' })).to.deep.equal([
      `${NKEY} and a user or token in NATS_URL are both set: keep one`,
    ]);
    expect(faultsOf({ [NKEY]: nkeyFile, NATS_URL: '' })).to.deep.equal([
      `${NKEY} has no effect without NATS_URL`,
    ]);
  });
});
