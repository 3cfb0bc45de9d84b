/** The keys of a service, made here: their private parts never leave this machine. */

import { createPrivateKey, createPublicKey, generateKeyPairSync } from 'node:crypto';
import { lstat, readFile, writeFile } from 'node:fs/promises';
import { nkeys } from 'nats';
import { CommandError } from './failures.js';

/** Only the owner may read a key. */
const KEY_MODE = 0o600;

/** A private key in a file, and its public part. */
export interface KeyFile {
  readonly file: string;
  /** Whether it was made now; false when the file was there already. */
  readonly isNew: boolean;
  readonly publicKey: string;
}

/** The key with which a service authenticates at auth (Ed25519, PKCS #8 PEM). */
export async function clientKey(file: string): Promise<KeyFile> {
  const made = generateKeyPairSync('ed25519').privateKey.export({ type: 'pkcs8', format: 'pem' });
  const { text, isNew } = await readOrCreate(file, String(made));
  try {
    const publicKey = createPublicKey(createPrivateKey(text)).export({ type: 'spki', format: 'pem' });
    return { file, isNew, publicKey: String(publicKey) };
  } catch (cause) {
    throw new CommandError(
      `${file} is there already, and is no private key in PEM: name another folder with --out.`,
      { cause },
    );
  }
}

/** The key with which a service connects to the broker: the seed of an nkey. */
export async function brokerKey(file: string): Promise<KeyFile> {
  const seed = new TextDecoder().decode(nkeys.createUser().getSeed());
  const { text, isNew } = await readOrCreate(file, `${seed}\n`);
  try {
    const pair = nkeys.fromSeed(new TextEncoder().encode(text.trim()));
    return { file, isNew, publicKey: pair.getPublicKey() };
  } catch (cause) {
    throw new CommandError(
      `${file} is there already, and is no seed of an nkey: name another folder with --out.`,
      { cause },
    );
  }
}

/** An existing key is never overwritten: something else may be known under it. */
async function readOrCreate(
  file: string,
  content: string,
): Promise<{ readonly text: string; readonly isNew: boolean }> {
  try {
    await writeFile(file, content, { flag: 'wx', mode: KEY_MODE });
    return { text: content, isNew: true };
  } catch (error) {
    if (!(error instanceof Error && 'code' in error && error.code === 'EEXIST')) throw error;
    await requirePrivate(file);
    return { text: await readFile(file, 'utf8'), isNew: false };
  }
}

/** Somebody else may know a key that others could write or read, or that a link leads to. */
async function requirePrivate(file: string): Promise<void> {
  const found = await lstat(file);
  const isOwn = process.getuid === undefined || found.uid === process.getuid();
  if (found.isFile() && isOwn && (found.mode & 0o077) === 0) return;
  throw new CommandError(
    `${file} is there already, and is not a file that only you can read and write: remove it, or name another folder with --out.`,
  );
}
