/** The secrets of a data folder: created once, readable by their owner only, never overwritten. */

import { createPrivateKey, createPublicKey } from 'node:crypto';
import { mkdir, readdir, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { expect } from 'chai';
import { loadSecrets } from '../../../scripts/system/secrets.js';
import { SystemError } from '../../../scripts/system/system-error.js';
import { makeFolder, type TestFolder } from '../../support/folders.js';
import { rejectionOf } from '../../support/outcomes.js';

describe('the secrets of a data folder', () => {
  let folder: TestFolder;

  beforeEach(async () => {
    folder = await makeFolder();
  });

  afterEach(() => folder.remove());

  it('keep their values from start to start, and differ between folders', async () => {
    const first = await loadSecrets(join(folder.path, 'one'));
    const contents = await contentsOf(first.folder);
    expect(await loadSecrets(join(folder.path, 'one'))).to.deep.equal(first);
    expect(await contentsOf(first.folder)).to.deep.equal(contents);
    const other = await loadSecrets(join(folder.path, 'two'));
    const passwords = [first, other].flatMap(({ users }) =>
      Object.values(users).map(({ password }) => password),
    );
    expect(new Set(passwords).size).to.equal(6);
  });

  it('have a password for each database role, and keep that of an earlier version', async () => {
    await mkdir(join(folder.path, 'secrets'), { mode: 0o700 });
    await writeFile(join(folder.path, 'secrets', 'payment-database-password'), 'former', { mode: 0o600 });
    const { databasePasswords } = await loadSecrets(folder.path);
    expect(databasePasswords.payment.service).to.equal('former');
    const all = Object.values(databasePasswords).flatMap(({ service, owner }) => [service, owner]);
    expect(new Set(all).size).to.equal(6);
    for (const password of all) if (password !== 'former') expect(password).to.match(/^[\w-]{32}$/);
  });

  it('are readable by their owner only', async () => {
    const { folder: secrets } = await loadSecrets(folder.path);
    expect((await stat(secrets)).mode & 0o777).to.equal(0o700);
    for (const name of await readdir(secrets)) {
      expect((await stat(join(secrets, name))).mode & 0o777).to.equal(0o600);
    }
  });

  it('keep the key-encryption key when other files are lost', async () => {
    const {
      folder: secrets,
      keyEncryptionKeyFile,
      clientKeyFiles,
      bootstrapFile,
    } = await loadSecrets(folder.path);
    const before = await contentsOf(secrets);
    await rm(bootstrapFile);
    await loadSecrets(folder.path);
    const after = await contentsOf(secrets);
    for (const file of [keyEncryptionKeyFile, ...Object.values(clientKeyFiles)]) {
      expect(after.get(file)).to.equal(before.get(file));
    }
  });

  it('gives each client the public half of its own key, and only the scopes that it needs', async () => {
    const { bootstrapFile, clientKeyFiles } = await loadSecrets(folder.path);
    const { clients } = JSON.parse(await readFile(bootstrapFile, 'utf8')) as {
      clients: { client_id: 'inventory' | 'payment'; public_key_pem: string; scopes: string[] }[];
    };
    for (const { client_id: id, public_key_pem: publicKey } of clients) {
      const key = createPrivateKey(await readFile(clientKeyFiles[id], 'utf8'));
      expect(key.asymmetricKeyType).to.equal('ed25519');
      expect(createPublicKey(publicKey).equals(createPublicKey(key))).to.equal(true);
    }
    const scopes = Object.fromEntries(clients.map(({ client_id: id, scopes: granted }) => [id, granted]));
    expect(scopes).to.deep.equal({
      inventory: ['auth.sync'],
      payment: ['auth.sync', 'auth.exchange', 'inventory.settle'],
    });
  });

  it('are rejected with a clear message when a client of an earlier version lacks a scope', async () => {
    const { bootstrapFile } = await loadSecrets(folder.path);
    const made = await readFile(bootstrapFile, 'utf8');
    await writeFile(bootstrapFile, made.replaceAll(/,\s*"inventory\.settle"/g, ''));
    const refusal = await rejectionOf(loadSecrets(folder.path));
    expect(refusal).to.be.instanceOf(SystemError);
    expect(refusal.message).to.contain('payment lacks the scope inventory.settle');
  });

  it('contain a key-encryption key of 32 bytes', async () => {
    const { keyEncryptionKeyFile } = await loadSecrets(folder.path);
    const text = await readFile(keyEncryptionKeyFile, 'utf8');
    expect(Buffer.from(text, 'base64url')).to.have.length(32);
    expect(Buffer.from(text, 'base64url').toString('base64url')).to.equal(text);
  });
});

async function contentsOf(folder: string): Promise<Map<string, string>> {
  const paths = (await readdir(folder)).map((name) => join(folder, name));
  return new Map(await Promise.all(paths.map(async (path) => [path, await readFile(path, 'utf8')] as const)));
}
